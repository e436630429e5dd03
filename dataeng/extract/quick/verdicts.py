"""Which elements an XPath selects by their own tag and attributes, decided once for each distinct kind of element.

trafilatura's rules are long chains of tests on ``class`` and ``id`` that are run for every element of every
page. Here one regular expression for each attribute, made of all the strings that the rules look for, says first
whether a value can matter at all. The few elements that pass are told apart by their tag and the attributes
tested: the rules themselves are run on one stand-in for each kind. What is remembered is pure, so it changes
no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lxml import etree

Node = Any  # an lxml element
Kind = tuple[Any, ...]  # a tag, then the attributes that are tested, in the order of the page
_REMEMBERED = 100_000  # kinds, or values of one attribute; all are forgotten when they are more
_TAG = re.compile(r"(?:self::|//)([a-z]\w*)")
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_CALL = re.compile(
    r"(re:test|contains|starts-with)\(\s*(?:translate\(\s*)?(@[\w-]+(?:\s*\|\s*@[\w-]+)*)"
    r"(?:\s*,\s*'[^']*'\s*,\s*'[^']*'\s*\))?\s*,\s*'([^']*)'(\s*,\s*'i')?\s*\)"
)
_EQUAL = re.compile(r"@([\w-]+)\s*=\s*'([^']*)'")
_INNER_SPACE = re.compile(r"[^ |(] +[^ |)]|\[\^|\\s|\\ ")
_ANY_TAG = re.compile(r"//\*\[\s*(?!self::)")
_ATTRIBUTE = re.compile(r"@([\w-]+)")


def _searched(path: str) -> dict[str, list[str]]:
    """For each attribute that an XPath tests, patterns of which one is in every value that can matter."""
    found: dict[str, list[str]] = {}

    def call(match: re.Match[str]) -> str:
        function, names, text, any_case = match.groups()
        pattern = text if function == "re:test" else re.escape(text)
        if any_case or "translate" in match[0]:
            pattern = f"(?i:{pattern})"
        for name in _ATTRIBUTE.findall(names):
            found.setdefault(name, []).append(pattern)
        return ""

    rest = _CALL.sub(call, path)
    for name, value in _EQUAL.findall(rest):
        found.setdefault(name, []).append(f"^{re.escape(value)}$")
    for name in _ATTRIBUTE.findall(_EQUAL.sub("", rest)):  # tested in some other way: any value can matter
        found.setdefault(name, []).append("")
    return found


def _word_pattern(pattern: str) -> str:
    """A pattern for values of several words as one that is found in one of the words."""
    return re.sub(r" (?=$|[|)])", "$", re.sub(r"(^|[|(]) ", r"\1^", pattern))


class Verdicts:
    """The verdicts of several XPaths, as a sum of powers of two: bit n is set where XPath n selects the element.

    The XPaths must look at nothing but the tag and the attributes of the element that they select.
    """

    def __init__(self, rules: Sequence[etree.XPath]) -> None:
        self.rules = tuple(rules)
        self.named = frozenset(name for rule in rules for name in _TAG.findall(rule.path))
        searched: dict[str, list[str]] = {}
        for rule in rules:
            for name, patterns in _searched(rule.path).items():
                searched.setdefault(name, []).extend(patterns)
        self.by_word = not any(_INNER_SPACE.search(text) for text in searched.get("class", ()))
        if self.by_word and "class" in searched:  # a word matches wherever it stands in its value
            searched["class"] = [_word_pattern(text) for text in searched["class"]]
        self.searched = {name: re.compile("|".join(dict.fromkeys(texts))) for name, texts in searched.items()}
        self.matters: dict[str, dict[str, bool]] = {name: {} for name in searched}
        self.known: dict[Kind, int] = {}
        self._learn((tag,) for tag in sorted(self.named))
        bare = [tag for tag in sorted(self.named) if self.known[(tag,)]]
        self.bare = frozenset(bare)
        every = any(_ANY_TAG.search(rule.path) for rule in rules)
        self.tags = ("*",) if every else tuple(sorted(self.named))

    def _kind(self, node: Node) -> Kind:
        tag, tested = node.tag, self.searched
        return (tag if tag in self.named else "other", *[pair for pair in node.items() if pair[0] in tested])

    def _learn(self, kinds: Iterable[Kind]) -> None:
        """Run the rules on a stand-in for each kind."""
        top, places = etree.Element("other"), {}
        for kind in kinds:
            values = {name: _NOT_XML.sub("", value) for name, value in kind[1:]}
            places[etree.SubElement(top, kind[0], values)] = kind
            self.known[kind] = 0
        for number, rule in enumerate(self.rules if places else ()):
            for stand_in in rule(top):
                self.known[places[stand_in]] |= 1 << number

    def _can_matter(self, name: str, value: str) -> bool:
        values = self.matters[name]
        if len(values) > _REMEMBERED:
            values.clear()
        if name == "class" and " " in value and self.by_word:  # words recur where whole values do not
            found = any([values[word] if word in values else self._can_matter(name, word) for word in value.split()])
        else:
            found = self.searched[name].search(value) is not None
        values[value] = found
        return found

    def forget(self) -> None:
        """Forget all verdicts; it changes no result, only what the next page costs."""
        self.known.clear()
        for values in self.matters.values():
            values.clear()

    def _candidates(self, top: Node) -> list[Node]:
        """The descendants of which an attribute has a value that can matter, in document order."""
        found, matters, bare = [], self.matters, self.bare
        for node in top.iterdescendants(*self.tags):
            for name, value in node.items():
                if (known := matters.get(name)) is not None:
                    hit = known.get(value)
                    if self._can_matter(name, value) if hit is None else hit:
                        found.append(node)
                        break
            else:
                if bare and node.tag in bare:
                    found.append(node)
        return found

    def select(self, top: Node) -> dict[Node, int]:
        """The descendants of ``top`` that at least one rule selects, in document order, with their verdicts."""
        known = self.known
        if len(known) > _REMEMBERED:
            known.clear()
        found = [(node, self._kind(node)) for node in self._candidates(top)]
        self._learn(dict.fromkeys(kind for _, kind in found if kind not in known))
        return {node: verdict for node, kind in found if (verdict := known[kind])}
