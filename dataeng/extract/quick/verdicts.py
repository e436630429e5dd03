"""Which elements an XPath selects by their own tag and attributes, decided once for each distinct kind of element.

trafilatura's rules are long chains of tests on ``class`` and ``id`` that are run for every element of every
page. Elements that agree in tag and in the attributes tested agree in the verdict, so the rule itself is run
on one stand-in for each kind, and remembered. The remembered verdicts are pure: they change no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lxml import etree

Node = Any  # an lxml element
Kind = tuple[Any, ...]  # a tag, then the attributes that are tested, in the order of the page
_REMEMBERED = 100_000  # verdicts of one rule set; all are forgotten when they are more
_ATTRIBUTE = re.compile(r"@([\w-]+)")
_TAG = re.compile(r"(?:self::|//)([a-z]\w*)")
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Verdicts:
    """The verdicts of several XPaths, as a sum of powers of two: bit n is set where XPath n selects the element."""

    def __init__(self, rules: Sequence[etree.XPath], tags: Sequence[str] = ()) -> None:
        self.rules = tuple(rules)
        self.tags = tuple(tags)
        self.tested = frozenset(name for rule in rules for name in _ATTRIBUTE.findall(rule.path))
        self.named = frozenset(name for rule in rules for name in _TAG.findall(rule.path))
        self.known: dict[Kind, int] = {}

    def _kind(self, node: Node) -> Kind:
        tag, tested = node.tag, self.tested
        return (tag if tag in self.named else "other", *[pair for pair in node.items() if pair[0] in tested])

    def _learn(self, kinds: Iterable[Kind]) -> None:
        """Run the rules on a stand-in for each kind."""
        if len(self.known) > _REMEMBERED:
            self.known = {}
        top, places = etree.Element("stand-ins"), {}
        for kind in kinds:
            values = {name: _NOT_XML.sub("", value) for name, value in kind[1:]}
            places[etree.SubElement(top, kind[0], values)] = kind
            self.known[kind] = 0
        for number, rule in enumerate(self.rules):
            for stand_in in rule(top):
                self.known[places[stand_in]] |= 1 << number

    def select(self, top: Node) -> list[tuple[Node, int]]:
        """The descendants of ``top`` that at least one rule selects, in document order, with their verdicts."""
        found = [(node, self._kind(node)) for node in top.iterdescendants(*(self.tags or ("*",)))]
        known = self.known
        unknown = {kind for _, kind in found if kind not in known}
        if unknown:
            self._learn(sorted(unknown))
            known = self.known
            if not all(kind in known for _, kind in found):  # forgotten just now
                self._learn(sorted({kind for _, kind in found} - known.keys()))
        return [(node, known[kind]) for node, kind in found if known[kind]]
