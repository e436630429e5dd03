"""Takes lines of page furniture out of a document that stays. A transform: it counts and never drops.

Meant to be timid: a line goes only if it is short and the whole of it is of one kind, so that a
sentence of prose about cookies, sharing or JavaScript stays. Kinds, in the order they are tried:

- ``crumbs``: trails (``Home » Docs » Install``), menus of links and pagers (``Prev | Up | Next``),
  ``Skip to content``, ``Back to top``. A heading of one word stays.
- ``cookies``: notices of consent and their buttons.
- ``share``: buttons and requests to share or follow, made of networks' names and such verbs alone.
- ``javascript``: requests to enable it.
- ``own``: lines that one of the config's patterns matches as a whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator

from dataeng.document import Document
from dataeng.recipe import Table

Kind = Literal["crumbs", "cookies", "share", "javascript"]

_HOME = r"home(?:page)?|start(?:seite)?|main page|accueil|inicio|início|página inicial|pagina iniziale|hjem|hem|главная"
_LINK = (
    rf"{_HOME}|about(?: us)?|contacts?(?: us)?|login|log ?in|log ?out|sign ?in|sign ?up|register|search|site ?map|"
    r"faq|privacy(?: policy)?|terms(?: of (?:use|service))?|imprint|impressum|kontakt|datenschutz|blog|news|menu"
)
_STEP = r"(?: (?:page|post|article|topic|chapter|section))?"
_PAGER = (
    rf"prev(?:ious)?{_STEP}|next{_STEP}|up|top|first|last|back|contents|index|{_HOME}|zurück|weiter|"
    r"précédent|suivant|anterior|siguiente|próximo|indietro|avanti"
)
_ALONE = re.compile(
    r"\W*(?:skip to (?:main |the )?(?:content|navigation|search)|jump to (?:content|navigation|search)(?:, search)?"
    r"|(?:back|return|go) to (?:the )?top(?: of (?:the )?page)?|toggle navigation|you are here:?|read more"
    r"|continue reading|nach oben|zum inhalt springen|aller au contenu|ir al contenido)\W*"
)
_TRAIL = re.compile(r"\s+(?:[»›→]|>{1,2}|::)\s+|\s*[»›]\s*")
_MENU = re.compile(r"\s*[|·•‹›«»]\s*|\s{2,}|\s+-\s+")
_IS_HOME, _IS_LINK, _IS_PAGER = (re.compile(one) for one in (_HOME, _LINK, _PAGER))
_PAGER_WORDS = re.compile(rf"\W*(?:(?:{_PAGER})\W+)+(?:{_PAGER})\W*")

_SITE = r"(?:we|i|this (?:web ?)?(?:site|page)|our (?:web ?)?(?:site|partners)|the (?:web ?)?site)"
_COOKIES = re.compile(
    rf"{_SITE}\b[^.]{{0,60}}\b(?:uses?|using|sets?|place) (?:[\w-]+ ){{0,3}}cookies\b.*"
    r"|(?:by|if you) (?:continu|us|brows|click|clos)[^.]{0,80}\bcookies\b.*"
    r"|(?:(?:i )?(?:accept|allow|reject|decline|manage|agree to)|got it|ok)[\s,!]*(?:all |the )?cookies\W*"
    r"|cookies?[ -](?:policy|settings|preferences|notice|consent|statement|einstellungen|richtlinie|erklärung)\W*"
    r"|(?:wir verwenden|wir nutzen|diese (?:web)?(?:seite|site) (?:verwendet|nutzt|benutzt)) (?:\w+ )?cookies\b.*"
    r"|(?:ce site(?: web)? utilise|nous utilisons) (?:des |les )?cookies\b.*"
    r"|(?:este sitio(?: web)? (?:utiliza|usa)|utilizamos|usamos|este site (?:utiliza|usa)) (?:\w+ )?cookies\b.*"
    r"|(?:questo sito (?:web )?(?:utilizza|usa)|utilizziamo) (?:i )?cookies?\b.*"
    r"|(?:deze (?:web)?site (?:gebruikt|maakt gebruik van)|wij gebruiken) (?:\w+ )?cookies\b.*"
)

_NETWORK = (
    r"facebook|twitter|linked ?in|whats ?app|pinterest|reddit|tumblr|telegram|instagram|you ?tube|google ?(?:\+|plus)|"
    r"mastodon|digg|stumble ?upon|weibo|tiktok"
)
_VERB = r"share|tweet|retweet|pin it|follow|click to|teilen|partager|compartir|compartilhar|condividi"
_MORE = r"x|like|pin|send|e-?mail|print|copy link|rss|xing|vk|pocket"
_FILLER = (
    r"this|us|on|to|via|by|with|and|or|it|me|page|post|article|story|a|friend|link|auf|sur|en|em|su|the|"
    r"\(?opens in (?:a )?new (?:window|tab)\)?"
)
# Atomic and possessive: a line that is nearly of the kind must not be tried in every way that it can be read.
_SHARE = re.compile(rf"[^\w(]*+(?:(?>(?:{_VERB}|{_NETWORK}|{_MORE}|{_FILLER})(?!\w))(?:[^\w(]++|$))++")
_BUTTON = re.compile(rf"\b(?:{_VERB}|{_NETWORK}|{_MORE})(?!\w)")
_STRONG = re.compile(rf"\b(?:{_VERB}|{_NETWORK})(?!\w)")

_ON = (
    r"(?:enable|activate|turn on|switch on|allow|aktivieren|activer|activez|active|habilite|habilitar|activar|abilita|"
    r"ative|ativar)"
)
_JAVASCRIPT = re.compile(
    rf"(?:.{{0,60}}\b)?(?:please|you (?:need|must|have|will need)(?: to)?|must|bitte|veuillez|por favor|per favore)\b"
    rf".{{0,60}}\b{_ON}\b.{{0,30}}\bjavascript\b.*"
    rf"|bitte .{{0,30}}javascript.{{0,60}}\b(?:aktivieren|ein)\b.*"
    r"|(?:.{0,40}\b)?javascript (?:is|seems to be|appears to be|must be|needs to be|has been|ist|est) (?:currently )?"
    r"(?:disabled|turned off|switched off|not enabled|enabled to|required|deaktiviert|désactivé)\b.*"
    r"|(?:this|our|the) (?:\w+ )?(?:site|page|app|application|forum|website|feature|form|content) "
    r"(?:requires|needs|works best with|relies on) javascript\b.*"
    r"|(?:.{0,40}\b)?your browser (?:does not|doesn't) (?:support|have|allow) javascript\b.*"
)
_SENTENCE = re.compile(r"[.!?]\s+\S")


class Config(Table):
    """Table `filter.lines`."""

    kinds: list[Kind] = Field(["crumbs", "cookies", "share", "javascript"], description="What is taken out")
    characters_max: int = Field(200, ge=1, description="Longer lines stay, characters")
    patterns: list[str] = Field([], description="Regular expressions, whatever the case: lines they match whole go too")

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns

    @cached_property
    def compiled(self) -> list[re.Pattern[str]]:
        """The patterns, ready for use."""
        return [re.compile(pattern, re.IGNORECASE) for pattern in self.patterns]


def transform(document: Document, config: Config) -> Document:
    """The document without such lines, with the scores ``lines.KIND`` counting those that went."""
    text = document.text or ""
    counts, kept, done = Counter[str](), [], 0
    for start, end in _candidates(text, config):
        kind = _kind(text[start:end], config)
        if kind is not None:
            counts[kind] += 1
            kept.append(text[done:start])
            done = min(end + 1, len(text))
    if counts:
        whole = "".join([*kept, text[done:]])
        text = whole[:-1] if done == len(text) and whole.endswith("\n") and not text.endswith("\n") else whole
    names = [*config.kinds, *(["own"] if config.patterns else [])]
    scores = {f"lines.{name}": float(counts[name]) for name in names}
    return replace(document, text=None if document.text is None else text, scores=document.scores | scores)


def _candidates(text: str, config: Config) -> list[tuple[int, int]]:
    """Starts and ends of the lines that have to be looked at, in order."""
    ends: dict[int, int] = {}
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose lower case is two characters: places must stay
        lowered = "".join(low if len(low := character.lower()) == 1 else character for character in text)
    for hint in ["\n"] if config.patterns else [hint for kind in config.kinds for hint in _HINTS[kind]]:
        place = 0 if config.patterns else lowered.find(hint)
        while place >= 0:
            end = lowered.find("\n", place)
            end = len(text) if end < 0 else end
            start = lowered.rfind("\n", 0, place) + 1
            if end - start <= config.characters_max + 80:  # white space around the line aside
                ends[start] = end
            place = end + 1 if config.patterns and end < len(text) else lowered.find(hint, end)
    return sorted(ends.items())


def _kind(line: str, config: Config) -> str | None:
    """What kind of furniture a line is, or None."""
    line = line.strip()
    if not line or len(line) > config.characters_max:
        return None
    lowered = line.lower()
    found = next((kind for kind in config.kinds if _TESTS[kind](lowered)), None)
    if found is None and any(pattern.fullmatch(line) for pattern in config.compiled):
        return "own"
    return found


def _crumbs(line: str) -> bool:
    if line[0] in "|$#%" or line.endswith((".", ",", ";", "{", "}", "|")):
        return False  # a row of a table, a command, a sentence
    if _ALONE.fullmatch(line) or _PAGER_WORDS.fullmatch(line):
        return True
    trail = [item for item in _TRAIL.split(line) if item]
    if len(trail) >= 3 and _IS_HOME.fullmatch(trail[0].strip()) and _short(trail):
        return True
    items = [item.strip() for item in _MENU.split(line) if item.strip()]
    known = sum(bool(_IS_LINK.fullmatch(item) or _IS_PAGER.fullmatch(item)) for item in items)
    return len(items) >= 3 and 2 * known >= len(items) and known >= 2 and _short(items)


def _short(items: list[str]) -> bool:
    return all(len(item) <= 40 and len(item.split()) <= 5 for item in items)


def _cookies(line: str) -> bool:
    return _COOKIES.fullmatch(line.lstrip("✕×x*•- ")) is not None


def _share(line: str) -> bool:
    if _SENTENCE.search(line) or not _SHARE.fullmatch(line):
        return False
    first = _BUTTON.search(line)
    starts = first is not None and not line[: first.start()].strip("·|•- ")
    return starts and len(_BUTTON.findall(line)) >= 2 and _STRONG.search(line) is not None


def _javascript(line: str) -> bool:
    return "javascript" in line and _JAVASCRIPT.fullmatch(line) is not None


_TESTS: dict[Kind, Callable[[str], bool]] = {
    "crumbs": _crumbs,
    "cookies": _cookies,
    "share": _share,
    "javascript": _javascript,
}
# Each line of a kind holds one of these, in lower case: others need not be looked at.
_HINTS: dict[Kind, tuple[str, ...]] = {
    "crumbs": (
        *(
            "»",
            "›",
            "→",
            " > ",
            " >> ",
            " :: ",
            "prev",
            "next",
            "home",
            "start",
            "login",
            "sign in",
            "contact",
            "about",
        ),
        *("skip to", "jump to", "to top", "to the top", "read more", "continue reading", "you are here", "toggle nav"),
        *("kontakt", "impressum", "datenschutz", "sitemap", "faq", "blog", "accueil", "inicio", "início", "hjem"),
        *("главная", "nach oben", "zum inhalt", "contenu", "contenido", "zurück", "weiter", "précédent", "suivant"),
        *("anterior", "siguiente", "próximo", "indietro", "avanti", "top | ", "up | ", "back | ", "first | "),
    ),
    "cookies": ("cookie",),
    "share": (
        *("share", "tweet", "pin it", "follow", "click to", "teilen", "partager", "compart", "condividi", "facebook"),
        *("twitter", "linked", "whats", "pinterest", "reddit", "tumblr", "telegram", "instagram", "tube", "google"),
        *("mastodon", "digg", "stumble", "weibo", "tiktok"),
    ),
    "javascript": ("javascript",),
}
