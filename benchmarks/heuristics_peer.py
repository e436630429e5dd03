"""datatrove's side of ``heuristics_speed.py``: run by an interpreter that has it, on texts from a JSONL file.

Reads requests from standard input, a line each: ``GROUP chain`` and ``GROUP all`` answer with CPU seconds
and the number of texts kept; ``GROUP rules`` with which texts each rule alone drops.
"""

from __future__ import annotations

import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.word_tokenizers import WordTokenizer
from loguru import logger

CHAIN = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]


class AtWhiteSpace(WordTokenizer):
    """Words as millrace takes them, so that rules can be compared on the same words."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


REPETITION = {"dup_line_frac": 0.3, "dup_para_frac": 0.3, "dup_line_char_frac": 0.2, "dup_para_char_frac": 0.2}
NO_REPETITION = dict.fromkeys(REPETITION) | {"top_n_grams": (), "dup_n_grams": ()}
QUALITY = {
    "min_doc_words": 50, "max_doc_words": 100_000, "min_avg_word_length": 3, "max_avg_word_length": 10,
    "max_symbol_word_ratio": 0.1, "max_bullet_lines_ratio": 0.9, "max_ellipsis_lines_ratio": 0.3,
    "max_non_alpha_words_ratio": 0.8, "min_stop_words": 2,
}  # fmt: skip
FINEWEB = {"line_punct_thr": 0.12, "short_line_thr": 0.67, "char_duplicates_ratio": 0.01, "new_line_ratio": 0.3}
NO_FINEWEB = {"line_punct_thr": 0.0, "short_line_thr": 1.0, "char_duplicates_ratio": 1.0, "new_line_ratio": 1e9}
C4 = {
    "filter_lorem_ipsum": {"filter_lorem_ipsum": True},
    "filter_curly_bracket": {"filter_curly_bracket": True},
    "min_num_sentences": {"min_num_sentences": 5},
}
NO_C4 = {"min_num_sentences": -1, "filter_lorem_ipsum": False, "filter_curly_bracket": False}
TOP, DUPLICATE = {2: 0.20, 3: 0.18, 4: 0.16}, {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def alone(language: object) -> dict[str, BaseFilter]:
    """Each rule of Gopher and FineWeb in a filter of its own."""
    rules: dict[str, BaseFilter] = {}
    for name, value in REPETITION.items():
        rules[name] = GopherRepetitionFilter(**NO_REPETITION | {name: value}, language=language)
    for n, share in TOP.items():
        rules[f"top_{n}"] = GopherRepetitionFilter(**NO_REPETITION | {"top_n_grams": ((n, share),)}, language=language)
    for n, share in DUPLICATE.items():
        rules[f"dup_{n}"] = GopherRepetitionFilter(**NO_REPETITION | {"dup_n_grams": ((n, share),)}, language=language)
    for name, value in QUALITY.items():
        rules[name] = GopherQualityFilter(**dict.fromkeys(QUALITY) | {name: value}, language=language)
    for name, value in FINEWEB.items():
        rules[name] = FineWebQualityFilter(**NO_FINEWEB | {name: value}, language=language)
    return rules


def dropped(rule: BaseFilter, text: str) -> bool:
    """Whether a rule drops a text; one that its filter cannot divide by counts as dropped."""
    try:
        return rule.filter(Document(text=text, id="x")) is not True
    except ZeroDivisionError:
        return True


def run(texts: list[str], every: bool) -> tuple[float, int]:
    """CPU seconds of the chain and the number of texts kept; ``every`` goes on after a drop."""
    kept, started = 0, time.process_time()
    for text in texts:
        document, good = Document(text=text, id="x"), True
        for rule in CHAIN:
            try:
                good = rule.filter(document) is True and good
            except ZeroDivisionError:
                good = False
            if not good and not every:
                break
        kept += good
    return time.process_time() - started, kept


def judge(texts: list[str]) -> dict[str, object]:
    """Which texts each rule drops (a string of 0 and 1), and the lines that C4's rules keep of each."""
    judged = alone("eng") | {name: C4QualityFilter(**NO_C4 | more) for name, more in C4.items()}
    judged |= {f"{name}, same words": rule for name, rule in alone(AtWhiteSpace()).items()}
    drops, lines = dict.fromkeys(judged, ""), []
    for text in texts:
        for name, rule in judged.items():
            drops[name] += str(int(dropped(rule, text)))
        document = Document(text=text, id="x")
        C4QualityFilter(**NO_C4).filter(document)
        lines.append(document.text.split("\n") if document.text else [])
    return {"drops": drops, "lines": lines}


def main() -> None:
    logger.remove()
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    dropped(CHAIN[1], "The tokenizer is made at its first use.")
    for request in sys.stdin:
        group, what = request.split()
        texts = [row["text"] for row in rows if row["group"] == group]
        answer = judge(texts) if what == "rules" else run(texts, what == "all")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
