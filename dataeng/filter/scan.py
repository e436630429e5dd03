"""One pass over a text for all heuristic rules: its words, lines and paragraphs as arrays of numbers.

Words, lines and paragraphs are those that ``filter.words`` defines. They are compared by 64-bit hashes of
their characters. The loops are compiled; what a character is (a space, a letter, a bullet …) comes
from a table made once a process.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dataeng.filter import words
from dataeng.jit import compiled

TERMINAL = ".?!…。！？｡．।॥؟۔։።၊။។៕܀"
CLOSING = "\"'”’»›)]}」』）】"
_QUOTES = "\"'”’»」』"
_PUNCTUATION = string.punctuation + "«»„“”‘’…¿¡。、！？"
_BULLETS = "•‣▪●◦*-"
_TABLE = 0x40000  # code points in the table; those above are neither spaces nor letters

SPACE, LETTER, HAN, SOUTH_EAST, MARK, WIDE, HANGUL, BULLET = (np.uint16(1 << bit) for bit in range(8))
ENDING, CLOSER, QUOTE, STRIPPED, STOP, STOP_CLOSER, STOP_ALONE = (np.uint16(1 << bit) for bit in range(8, 15))
_UNSPACED = HAN | SOUTH_EAST
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_SHIFT = np.uint64(32)
# Flags of a line: it begins with a bullet, ends in an ellipsis, a sentence's end, what C4 lets a line end in.
BULLETED, TRAILING_OFF, SENTENCE, C4_END = (np.uint8(1 << bit) for bit in range(4))


@dataclass(frozen=True, slots=True)
class Scan:
    """A text in numbers. Spans are code points; lines are those that are not blank."""

    words: np.ndarray  # uint64, the hash of each word
    stripped: np.ndarray  # uint64, of each word in lower case without punctuation at its ends
    word_starts: np.ndarray  # int64
    word_lengths: np.ndarray  # int64
    characters: int  # of all words
    with_letter: int  # words that have a letter
    lines: np.ndarray  # uint64
    line_numbers: np.ndarray  # int64, counted over blank lines too
    line_starts: np.ndarray  # int64
    line_lengths: np.ndarray  # int64
    line_columns: np.ndarray  # int64, Han, kana and Hangul count double
    line_flags: np.ndarray  # uint8
    line_sentences: np.ndarray  # int64
    bulleted: int  # lines that begin with a bullet
    trailing_off: int  # lines that end in an ellipsis
    ended: int  # lines that end a sentence
    paragraphs: np.ndarray  # uint64
    paragraph_lengths: np.ndarray  # int64
    unspaced: int  # characters of scripts without spaces
    hangul: int  # Hangul syllables


@lru_cache(maxsize=1)
def tables() -> tuple[np.ndarray, np.ndarray]:
    """What each code point is (uint16 flags), and its lower case (uint32) where that is one character."""
    characters = [chr(code) for code in range(_TABLE)]
    kinds = np.zeros(_TABLE + 1, np.uint16)
    kinds[:_TABLE] = np.where(np.fromiter(map(str.isspace, characters), bool, _TABLE), SPACE, 0)
    kinds[:_TABLE] |= np.where(np.fromiter(map(str.isalpha, characters), bool, _TABLE), LETTER, np.uint16(0))
    ranges = {HAN: words.HAN, SOUTH_EAST: words.SOUTH_EAST, MARK: words.MARKS, HANGUL: words.HANGUL}
    for flag, spans in (ranges | {WIDE: words.HAN + words.HANGUL}).items():
        for start, end in spans:
            kinds[start : min(end, _TABLE - 1) + 1] |= flag
    signs = {BULLET: _BULLETS, ENDING: TERMINAL, CLOSER: CLOSING, QUOTE: _QUOTES, STRIPPED: _PUNCTUATION}
    sentences = {STOP: ".?!…", STOP_CLOSER: "\"'”’»)]", STOP_ALONE: "。！？｡।॥؟۔"}
    for flag, listed in (signs | sentences).items():
        kinds[[ord(sign) for sign in listed]] |= flag
    lowered = [character.lower() for character in characters]
    codes = [ord(low if len(low) == 1 else own) for low, own in zip(lowered, characters, strict=True)]
    return kinds, np.array([*codes, 0], np.uint32)


@lru_cache(maxsize=2)
def scan(text: str) -> Scan:
    """The text's words, lines and paragraphs."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds, lower = tables()
    return Scan(*_scan(codes, kinds, lower))


def stop_hash(word: str) -> int:
    """The hash that ``Scan.stripped`` has where a word is this one (given without punctuation at its ends)."""
    found = scan(word).stripped
    return int(found[0]) if found.size else 0


@compiled()
def _scan(codes: Any, table: Any, lower: Any) -> Any:
    last = np.uint32(table.size - 1)
    kinds = np.empty(codes.size, np.uint16)
    unspaced, hangul = 0, 0
    for i in range(codes.size):
        kinds[i] = table[min(codes[i], last)]
        unspaced += (kinds[i] & _UNSPACED) != 0
        hangul += (kinds[i] & HANGUL) != 0
    starts, ends = _word_spans(kinds)
    stripped = _hash_stripped(codes, kinds, lower, starts, ends)
    numbers, line_starts, line_ends = _line_spans(codes, kinds)
    columns, flags, sentences = _describe_lines(codes, kinds, line_starts, line_ends)
    bulleted, trailing_off, ended, characters = 0, 0, 0, 0
    for flag in flags:
        bulleted += (flag & BULLETED) != 0
        trailing_off += (flag & TRAILING_OFF) != 0
        ended += (flag & SENTENCE) != 0
    for k in range(starts.size):
        characters += ends[k] - starts[k]
    firsts, lasts = _paragraph_spans(numbers, line_starts, line_ends)
    return (
        _hash_spans(codes, starts, ends), stripped, starts, ends - starts, characters,
        _with_letter(kinds, starts, ends), _hash_spans(codes, line_starts, line_ends), numbers,
        line_starts, line_ends - line_starts, columns, flags, sentences, bulleted, trailing_off, ended,
        _hash_spans(codes, firsts, lasts), lasts - firsts, unspaced, hangul,
    )  # fmt: skip


@compiled()
def _word_spans(kinds: Any) -> Any:
    """Starts and ends of words: runs without white space, and pieces of scripts without spaces.

    A piece is up to two Han or four South-East Asian characters with the marks that follow them.
    """
    most = 2
    for kind in kinds:
        most += ((kind & SPACE) != 0) + 2 * ((kind & _UNSPACED) != 0)
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count, inside, piece, left = 0, False, np.uint16(0), 0  # piece: the script of a piece, 0 in other words
    for i in range(kinds.size):
        kind = kinds[i]
        script = kind & _UNSPACED
        if kind & SPACE:
            goes_on = False
        elif script:
            goes_on = inside and piece == script and left > 0
            left = left - 1 if goes_on else (1 if script == HAN else 3)
        else:
            goes_on = inside and (piece == 0 or (kind & MARK) != 0)
            left = 0
        if inside and not goes_on:
            ends[count] = i
            count += 1
        if not goes_on:
            inside, piece = not kind & SPACE, script
            if inside:
                starts[count] = i
    if inside:
        ends[count] = kinds.size
        count += 1
    return starts[:count], ends[:count]


@compiled()
def _mixed(state: Any) -> Any:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection whose output bits look random."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled()
def _hash_spans(codes: Any, starts: Any, ends: Any) -> Any:
    """A 64-bit hash of each span of code points."""
    out = np.empty(starts.size, np.uint64)
    for k in range(starts.size):
        state = np.uint64(0)
        for i in range(starts[k], ends[k]):
            state = (state ^ np.uint64(codes[i])) * _MULTIPLIER
            state ^= state >> _SHIFT
        out[k] = _mixed(state)
    return out


@compiled()
def _hash_stripped(codes: Any, kinds: Any, lower: Any, starts: Any, ends: Any) -> Any:
    """Hashes of words in lower case, punctuation at their ends left out; 0 where nothing else is there."""
    out = np.zeros(starts.size, np.uint64)
    for k in range(starts.size):
        first, last = starts[k], ends[k]
        while first < last and kinds[first] & STRIPPED:
            first += 1
        while last > first and kinds[last - 1] & STRIPPED:
            last -= 1
        state = np.uint64(0)
        for i in range(first, last):
            code = lower[codes[i]] if codes[i] < lower.size - 1 else codes[i]
            state = (state ^ np.uint64(code)) * _MULTIPLIER
            state ^= state >> _SHIFT
        out[k] = _mixed(state) if last > first else np.uint64(0)
    return out


@compiled()
def _with_letter(kinds: Any, starts: Any, ends: Any) -> Any:
    count = 0
    for k in range(starts.size):
        for i in range(starts[k], ends[k]):
            if kinds[i] & LETTER:
                count += 1
                break
    return count


@compiled()
def _line_spans(codes: Any, kinds: Any) -> Any:
    """The numbers, starts and ends of lines that are not blank, white space at both ends left out."""
    most = 1
    for code in codes:
        most += code == 10
    numbers, starts, ends = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    count, number, first, last = 0, 0, -1, -1
    for i in range(codes.size + 1):
        if i == codes.size or codes[i] == 10:
            if first >= 0:
                numbers[count], starts[count], ends[count] = number, first, last + 1
                count += 1
            number, first = number + 1, -1
        elif not kinds[i] & SPACE:
            first = i if first < 0 else first
            last = i
    return numbers[:count], starts[:count], ends[:count]


@compiled()
def _describe_lines(codes: Any, kinds: Any, starts: Any, ends: Any) -> Any:
    """Columns, flags and sentences of each line."""
    columns, sentences = np.empty(starts.size, np.int64), np.empty(starts.size, np.int64)
    flags = np.zeros(starts.size, np.uint8)
    for k in range(starts.size):
        first, last = starts[k], ends[k] - 1
        columns[k] = ends[k] - first
        for i in range(first, ends[k]):
            columns[k] += (kinds[i] & WIDE) != 0
        sentences[k] = _sentences(kinds, first, ends[k])
        if kinds[first] & BULLET:
            flags[k] |= BULLETED
        dots = last - first > 1 and codes[last] == 46 and codes[last - 1] == 46 and codes[last - 2] == 46
        if codes[last] == 0x2026 or dots:
            flags[k] |= TRAILING_OFF
        if kinds[last] & (ENDING | QUOTE):
            flags[k] |= C4_END
        while last > first and kinds[last] & CLOSER:
            last -= 1
        if kinds[last] & ENDING:
            flags[k] |= SENTENCE
    return columns, flags, sentences


@compiled()
def _sentences(kinds: Any, start: Any, end: Any) -> Any:
    """Stretches with a letter, each up to an end mark that white space follows or that stands alone."""
    count, letter, marked = 0, False, False  # marked: end marks, and what closes after them, came just before
    for i in range(start, end):
        kind = kinds[i]
        if kind & STOP_ALONE or (marked and kind & SPACE):
            count += letter
            letter = False
        letter = letter or (kind & LETTER) != 0
        marked = (kind & STOP) != 0 or (marked and (kind & STOP_CLOSER) != 0)
    return count + letter


@compiled()
def _paragraph_spans(numbers: Any, starts: Any, ends: Any) -> Any:
    """Starts and ends of paragraphs: runs of lines that no blank line parts."""
    firsts, lasts = np.empty(starts.size, np.int64), np.empty(starts.size, np.int64)
    count = 0
    for k in range(starts.size):
        if k and numbers[k] == numbers[k - 1] + 1:
            lasts[count - 1] = ends[k]
        else:
            firsts[count], lasts[count] = starts[k], ends[k]
            count += 1
    return firsts[:count], lasts[:count]
