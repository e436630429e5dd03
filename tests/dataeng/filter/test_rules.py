"""Every bound of the heuristic rules: just kept, and just dropped, by the rule that is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.document import Document
from dataeng.filter import bounds, c4, fineweb, gopher
from dataeng.filter.gopher import Config
from dataeng.recipe import KeyProblem, build

# 100 different words of 4 letters: nothing repeats, nothing else fails.
NAMES = [a + b + c + d for a in "bc" for b in "aeiou" for c in "dfghj" for d in "ao"]
CLEAN = " ".join(["the", "of", *NAMES[:98]]) + "."


def judge(module, text, language=None, **config):
    table = module.Config(**config)
    document = Document("x", text, language=language)
    if hasattr(module, "transform"):
        document = module.transform(document, table)
    scores = module.scores(document, table)
    return module.decide(scores, table), scores


def numbered(n, ending="."):
    """n lines of ten different words each."""
    return [" ".join(f"{name}{line}x" for name in NAMES[:10]) + ending for line in range(n)]


GOPHER = [
    (" ".join(NAMES[:50]), " ".join(NAMES[:49]), "gopher.words", "min", {}),
    (" ".join(NAMES[:60]), " ".join(NAMES[:61]), "gopher.words", "max", {"words_max": 60}),
    (" ".join(n[:3] for n in NAMES), " ".join(["ab", *(n[:3] for n in NAMES[1:])]), "gopher.mean_word_length", "min",
     {f"top_{n}_gram_max": 1 for n in (2, 3, 4)}),
    (" ".join(n + "abcdef" for n in NAMES), " ".join([NAMES[0] + "abcdefg", *(n + "abcdef" for n in NAMES[1:])]),
     "gopher.mean_word_length", "max", {}),
    (" ".join([*NAMES[:90], *(f"#{n}" for n in NAMES[90:])]), " ".join([*NAMES[:89], *(f"#{n}" for n in NAMES[89:])]),
     "gopher.hashes_per_word", "max", {}),
    (" ".join([*(f"{n}..." for n in NAMES[:5]), *(f"{n}…" for n in NAMES[5:10]), *NAMES[10:]]),
     " ".join([*(f"{n}…" for n in NAMES[:11]), *NAMES[11:]]), "gopher.ellipses_per_word", "max", {}),
    ("\n".join([*(f"- {line}" for line in numbered(9)), *numbered(1, "!")]),
     "\n".join(f"• {line}" for line in numbered(10)), "gopher.bullet_lines", "max", {}),
    ("\n".join([*numbered(7), *numbered(3, "…")]), "\n".join([*numbered(6), *numbered(4, "...")]),
     "gopher.ellipsis_lines", "max", {"duplicate_lines_max": 1} | {f"duplicate_{n}_grams_max": 1 for n in range(5, 11)}
     | {f"top_{n}_gram_max": 1 for n in (2, 3, 4)}),
    (" ".join([*NAMES[:80], *(f"{n}{n}" for n in range(10, 30))]),
     " ".join([*NAMES[:79], *map(str, range(1000, 1021))]),
     "gopher.alphabetic_words", "min", {}),
]  # fmt: skip


@pytest.mark.parametrize(("kept", "dropped", "rule", "bound", "config"), GOPHER, ids=[f"{g[2]}.{g[3]}" for g in GOPHER])
def test_gopher_bounds(kept, dropped, rule, bound, config):
    assert judge(gopher, kept, **config)[0].keep
    verdict, scores = judge(gopher, dropped, **config)
    two = rule in ("gopher.words", "gopher.mean_word_length")
    assert (verdict.rule, verdict.bound, verdict.score) == (f"{rule}.{bound}" if two else rule, bound, scores[rule])


OFF = {name: 1 for name in Config.model_fields if name.startswith(("duplicate", "top")) and name.endswith("_max")}


def repeating(n, copies, words):
    """``copies`` of an n-gram between other words, all of six characters and all different."""
    gram, others = [f"gram{k:02}" for k in range(n)], (f"w{k:05}" for k in range(words))
    parts = [[*gram, next(others)] for _ in range(copies)]
    text = [word for part in parts for word in part]
    return " ".join([*text, *(next(others) for _ in range(words - len(text)))])


N_GRAMS = [(f"top_{n}_gram", n, share, share) for n, share in ((2, 20), (3, 18), (4, 16))]
N_GRAMS += [
    (f"duplicate_{n}_grams", n, share, share + 1) for n, share in zip(range(5, 11), range(15, 9, -1), strict=True)
]


@pytest.mark.parametrize(("name", "n", "percent", "copies"), N_GRAMS, ids=[g[0] for g in N_GRAMS])
def test_n_gram_bounds(name, n, percent, copies):
    config = {key: value for key, value in OFF.items() if key != f"{name}_max"} | {"alphabetic_words_min": 0}
    verdict, scores = judge(gopher, repeating(n, copies, 100 * n), **config)
    assert scores[f"gopher.{name}"] == percent / 100
    assert verdict.keep
    verdict, _ = judge(gopher, repeating(n, copies + 1, 100 * n), **config)
    assert verdict == (False, f"gopher.{name}", (percent + 1) / 100, percent / 100, "max")


REPEATS = [
    ("duplicate_lines", 3, "\n"),
    ("duplicate_line_characters", 2, "\n"),
    ("duplicate_paragraphs", 3, "\n\n"),
    ("duplicate_paragraph_characters", 2, "\n \n"),
]


@pytest.mark.parametrize(("name", "copies", "separator"), REPEATS, ids=[r[0] for r in REPEATS])
def test_repeated_parts_bounds(name, copies, separator):
    config = {key: value for key, value in OFF.items() if key != f"{name}_max"}
    parts = [" ".join(f"{word}{part}" for word in NAMES[:9]) for part in range(10)]
    for more in (0, 1):
        found = [*parts[: 10 - copies - more], *[parts[0]] * (copies + more)]
        verdict, scores = judge(gopher, separator.join(found), **config)
        assert scores[f"gopher.{name}"] == (copies + more) / 10
        assert verdict.rule == (f"gopher.{name}" if more else None)


def test_most_words():
    text = repeating(2, 1, 100_000)
    assert judge(gopher, text)[0].keep
    assert judge(gopher, text + " more")[0][:4] == (False, "gopher.words.max", 100_001, 100_000)


@pytest.mark.parametrize("module", [gopher, c4, fineweb])
def test_each_bound_keeps_what_equals_it_and_names_itself(module):
    config = module.Config()
    for limit in module.limits(config):
        beyond = limit.threshold + (1e-9 if limit.bound == "max" else -1e-9)
        assert module.decide({limit.score: limit.threshold}, config).keep
        assert module.decide({limit.score: beyond}, config) == (
            False,
            bounds.rule_name(limit, module.limits(config)),
            beyond,
            limit.threshold,
            limit.bound,
        )


PUBLISHED = {
    "gopher.words": (50, 100_000), "gopher.mean_word_length": (3, 10), "gopher.hashes_per_word": 0.1,
    "gopher.ellipses_per_word": 0.1, "gopher.bullet_lines": 0.9, "gopher.ellipsis_lines": 0.3,
    "gopher.alphabetic_words": 0.8, "gopher.stop_words": 2, "gopher.duplicate_lines": 0.3,
    "gopher.duplicate_paragraphs": 0.3, "gopher.duplicate_line_characters": 0.2,
    "gopher.duplicate_paragraph_characters": 0.2, "gopher.top_2_gram": 0.2, "gopher.top_3_gram": 0.18,
    "gopher.top_4_gram": 0.16, "gopher.duplicate_5_grams": 0.15, "gopher.duplicate_6_grams": 0.14,
    "gopher.duplicate_7_grams": 0.13, "gopher.duplicate_8_grams": 0.12, "gopher.duplicate_9_grams": 0.11,
    "gopher.duplicate_10_grams": 0.1, "c4.lorem_ipsum": 0, "c4.curly_brackets": 0, "c4.sentences": 5,
    "fineweb.line_punctuation": 0.12, "fineweb.short_lines": 0.67, "fineweb.duplicate_line_characters": 0.01,
    "fineweb.newlines_per_word": 0.3,
}  # fmt: skip


def test_bounds_are_the_published_ones():
    found: dict[str, list[float]] = {}
    for module in (gopher, c4, fineweb):
        for limit in module.limits(module.Config()):
            found.setdefault(limit.score, []).append(limit.threshold)
    assert found == {name: list(value) if isinstance(value, tuple) else [value] for name, value in PUBLISHED.items()}


MISTAKES = [
    (gopher, {"bullet_lines_max": 65}, "less than or equal to 1"),
    (gopher, {"top_2_gram_max": 20}, "less than or equal to 1"),
    (gopher, {"words_min": -1}, "greater than or equal to 0"),
    (gopher, {"words_min": 200_000}, "words_min = 200000 is above words_max = 100000"),
    (gopher, {"mean_word_length_max": 2}, "mean_word_length_min = 3.0 is above"),
    (gopher, {"stop_words": {"english": ["the"]}}, r"stop_words\.english"),
    (gopher, {"stop_words": {"en": ["of the"]}}, r"stop_words\.en\.0"),
    (gopher, {"stop_words": {"en": ["--"]}}, r"stop_words\.en\.0"),
    (fineweb, {"short_lines_max": 67}, "less than or equal to 1"),
    (fineweb, {"line_punctuation_min": -0.12}, "greater than or equal to 0"),
    (c4, {"notices": {"english": ["cookies"]}}, r"notices\.english"),
    (c4, {"notices": {"en": [""]}}, r"notices\.en\.0"),
    (c4, {"sentences_min": 0.5}, "valid integer"),
]


@pytest.mark.parametrize(("module", "values", "says"), MISTAKES, ids=[next(iter(m[1])) for m in MISTAKES])
def test_mistakes_in_a_rules_table_are_named(module, values, says):
    with pytest.raises(KeyProblem, match=says):
        build(module.Config, "filter", values)


def test_stop_words_bind_only_listed_languages():
    without = CLEAN.replace("of ", "")
    assert judge(gopher, CLEAN, "en")[1]["gopher.stop_words"] == 2
    assert judge(gopher, without, "en")[0][:3] == (False, "gopher.stop_words", 1.0)
    for language in (None, "sw", "zh"):
        verdict, scores = judge(gopher, without, language)
        assert verdict.keep
        assert "gopher.stop_words" not in scores
    assert not judge(gopher, CLEAN, "sw", stop_words={"sw": ["na", "ya", "wa"]})[0].keep


def test_stop_words_ignore_case_and_punctuation():
    assert judge(gopher, CLEAN.replace("the", '"The,').replace("of", "OF;"), "en")[1]["gopher.stop_words"] == 2


DUPLICATES = [
    ("gopher.duplicate_paragraphs", ["aaa", "aaa", "b", "c", "d", "e", "f", "g", "h", "i"], "\n\n", 0.1),
    ("gopher.duplicate_paragraph_characters", ["aaa", "aaa", "bbbb"], "\n\n", 0.3),
    ("gopher.duplicate_lines", ["aaa", "aaa", "aaa", "b"], "\n", 0.5),
    ("gopher.duplicate_line_characters", ["aaa", "aaa", "aaa", "b"], "\n", 0.6),
    ("gopher.duplicate_lines", ["a", "", "  ", "b"], "\n", 0.0),
]


@pytest.mark.parametrize(("score", "parts", "separator", "share"), DUPLICATES)
def test_copies_after_the_first_count(score, parts, separator, share):
    assert judge(gopher, separator.join(parts))[1][score] == pytest.approx(share)


def slow_n_grams(words):
    """The definitions of gopher's docstring, word by word."""
    total, found = sum(map(len, words)), {}
    for n in range(2, 11):
        places: dict[tuple, list[int]] = {}
        for start in range(len(words) - n + 1):
            places.setdefault(tuple(words[start : start + n]), []).append(start)
        if n <= 4:
            best = max(places.items(), key=lambda g: (len(g[1]), len("".join(g[0])), -g[1][0]), default=((), []))
            starts = best[1] if len(best[1]) > 1 else []
        else:
            starts = [start for group in places.values() for start in group[1:]]
        covered = {start + i for start in starts for i in range(n)}
        name = f"gopher.top_{n}_gram" if n <= 4 else f"gopher.duplicate_{n}_grams"
        found[name] = sum(len(words[i]) for i in covered) / max(total, 1)
    return found


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "e", "ff"]), max_size=60))
def test_n_grams_are_those_of_the_definition(words):
    scores = judge(gopher, " ".join(words))[1]
    for name, value in slow_n_grams(words).items():
        assert scores[name] == pytest.approx(value), name


def test_n_gram_bounds_drop():
    verdict, scores = judge(gopher, CLEAN + " spam ham" * 20)
    assert (verdict.rule, verdict.score) == ("gopher.top_2_gram", scores["gopher.top_2_gram"])
    sentence = " ".join(NAMES[:6])
    rest = " ".join(n + "q" for n in NAMES)
    verdict, _ = judge(gopher, f"{sentence} {rest} {sentence}", duplicate_5_grams_max=0.04)
    assert verdict.rule == "gopher.duplicate_5_grams"
    assert judge(gopher, f"{sentence} {rest} {sentence}", duplicate_5_grams_max=0.05)[0].keep


def test_limits_name_every_score_in_order():
    limits = gopher.limits(Config())
    assert [x.score for x in limits[:3]] == ["gopher.words", "gopher.words", "gopher.mean_word_length"]
    assert {x.score for x in limits} == judge(gopher, CLEAN, "en")[1].keys()


ENDED, OPEN = "A line that is longer than thirty characters.", "and another that is not ended by a mark"
FINEWEB = [
    ("\n".join([ENDED] * 3 + [OPEN] * 22), "\n".join([ENDED] * 2 + [OPEN] * 22),
     "fineweb.line_punctuation", {"duplicate_line_characters_max": 1}),
    ("\n".join(["x" * 30 + "."] + ["y" * 29 + "."] * 2), "\n".join(["y" * 29 + "."] * 3), "fineweb.short_lines",
     {"duplicate_line_characters_max": 1, "newlines_per_word_max": 9}),
    ("a" * 99 + ".\n" + "b" * 98 + ".\n" + "b" * 98 + ".", "a" * 98 + ".\n" + "b" * 98 + ".\n" + "b" * 98 + ".",
     "fineweb.duplicate_line_characters", {"duplicate_line_characters_max": 99 / 298, "newlines_per_word_max": 9}),
    ("one two three four five six seven.\n\neight nine ten.\n",
     "one two three four five six seven.\n\n\neight nine ten.\n",
     "fineweb.newlines_per_word", {"short_lines_max": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("kept", "dropped", "rule", "config"), FINEWEB, ids=[f[2] for f in FINEWEB])
def test_fineweb_bounds(kept, dropped, rule, config):
    assert judge(fineweb, kept, **config)[0].keep
    assert judge(fineweb, dropped, **config)[0].rule == rule


def test_sentences_end_in_other_scripts_and_inside_quotes():
    for line in ('He said "no."', "是的。", "क्या है।", "نعم؟", "(See there.)"):
        assert judge(fineweb, line)[1]["fineweb.line_punctuation"] == 1, line
    for line in ("Home", "About us:", "1, 2, 3,"):
        assert judge(fineweb, line)[1]["fineweb.line_punctuation"] == 0, line


C4_LINES = [
    ("This line ends.", None),
    ("This line does not", "without_end"),
    ("This trails off ...", "without_end"),
    ("Two words.", "short"),
    ("Three short words.", None),
    (f"A word {'x' * 1000} here.", None),
    (f"A word {'x' * 1001} here.", "long_word"),
    ("Please enable JavaScript in your browser.", "javascript"),
    ("This site uses cookies to serve you.", "notice"),
    ('He said it ends here."', None),
    ("It ends in an ellipsis…", "without_end"),
    ("Two dots end it..", None),
    ("Is it a question?", None),
    ("It is an exclamation!", None),
    ("这一行是一个完整的句子。", None),
]


@pytest.mark.parametrize(("line", "reason"), C4_LINES)
def test_c4_lines(line, reason):
    document = c4.transform(Document("x", line, language="en"), c4.Config())
    assert document.text == (line if reason is None else "")
    assert document.scores == ({} if reason is None else {f"c4.lines_{reason}": 1.0})


def test_c4_notices_are_those_of_the_language():
    line = "This site uses cookies to serve you."
    assert c4.transform(Document("x", line, language="pl"), c4.Config()).text == line


C4 = [
    ("One is here. Two is here. Three is here.\nFour is here. Five is here.",
     "One is here. Two is here. Three is here.\nFour is here, five is here.", "c4.sentences"),
    ("A is one here. B is. C is. D is. E is it.", "A is {one here. B is. C is. D is. E is it.", "c4.curly_brackets"),
    ("A is one here. B is. C is. D is. E is it.", "Lorem Ipsum one here. B is. C is. D is. E is it.", "c4.lorem_ipsum"),
]  # fmt: skip


@pytest.mark.parametrize(("kept", "dropped", "rule"), C4)
def test_c4_bounds(kept, dropped, rule):
    assert judge(c4, kept)[0].keep
    assert judge(c4, dropped)[0].rule == rule


def test_c4_switches():
    text = "A {line} without an end\n" * 5
    assert not judge(c4, text)[0].keep
    assert judge(c4, text, terminal_punctuation=False, curly_brackets_max=None)[0].keep


PIECES = [("我们提供安装，手册。", 4), ("plain words, here", 3), ("ภาษาไทย", 2), ("설치 안내서", 2)]


@pytest.mark.parametrize(("text", "words"), PIECES)
def test_words_of_scripts_without_spaces(text, words):
    assert judge(gopher, text)[1]["gopher.words"] == words


def test_mean_word_length_leaves_unspaced_scripts_alone_and_counts_letters_of_hangul():
    assert "gopher.mean_word_length" not in judge(gopher, "我们提供安装手册。" * 20)[1]
    assert judge(gopher, "설치 안내서")[1]["gopher.mean_word_length"] == 5.0


@settings(deadline=None)
@given(st.text())
def test_any_text_gets_finite_scores(text):
    for module in (gopher, fineweb, c4):
        scores = judge(module, text, "en")[1]
        assert all(0 <= value < float("inf") for value in scores.values())
