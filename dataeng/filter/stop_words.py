"""Function words by language (ISO 639-1): a text in that language has several of them.

English: the eight of Rae et al. 2021 (Gopher). The others are the most frequent articles,
conjunctions and prepositions of each language.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

Code = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]  # of a language, as documents have it
Word = Annotated[str, StringConstraints(pattern=r"^\S*\w\S*$")]  # one word, not of signs alone

STOP_WORDS: dict[str, list[str]] = {
    "en": ["the", "be", "to", "of", "and", "that", "have", "with"],
    "ca": ["el", "la", "de", "i", "que", "en", "amb", "per", "no", "és"],
    "cs": ["a", "v", "na", "se", "je", "že", "s", "z", "do", "to"],
    "da": ["og", "i", "at", "det", "en", "til", "er", "som", "på", "af"],
    "de": ["der", "die", "und", "in", "den", "von", "zu", "das", "mit", "ist"],
    "es": ["de", "la", "que", "el", "en", "y", "a", "los", "se", "con"],
    "fi": ["ja", "on", "ei", "että", "se", "hän", "oli", "mutta", "tai", "kun"],
    "fr": ["de", "la", "le", "et", "les", "des", "en", "un", "que", "est"],
    "id": ["yang", "dan", "di", "untuk", "dengan", "ini", "dari", "dalam", "pada", "adalah"],
    "it": ["di", "e", "il", "la", "che", "in", "un", "per", "con", "non"],
    "nl": ["de", "van", "het", "een", "en", "in", "is", "dat", "op", "te"],
    "no": ["og", "i", "det", "er", "en", "til", "som", "på", "av", "for"],
    "pl": ["i", "w", "na", "z", "do", "się", "nie", "że", "to", "jest"],
    "pt": ["de", "a", "o", "que", "e", "do", "da", "em", "um", "para"],
    "ro": ["de", "și", "în", "la", "cu", "a", "pe", "este", "să", "din"],
    "ru": ["и", "в", "не", "на", "что", "с", "по", "для", "это", "как"],
    "sv": ["och", "i", "att", "det", "en", "som", "på", "är", "av", "för"],
    "tr": ["ve", "bir", "bu", "için", "da", "de", "ile", "olarak", "daha", "gibi"],
    "uk": ["і", "в", "не", "на", "що", "з", "у", "та", "до", "для"],
}
