"""What counts as an evaluation item in a document, and what does not."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.decontaminate import Config, EvaluationSet, index, items
from dataeng.decontaminate.decide import counted, decided
from dataeng.decontaminate.items import Item
from dataeng.decontaminate.search import Common, Judge, grams_in, lcs, verdict
from dataeng.decontaminate.words import words
from dataeng.document import Document

QUESTION = (
    "Janet’s ducks lay 1,600 eggs per day. She eats three for breakfast every morning and bakes muffins for her "
    "friends every day with four. How much does she make?"
)
CONFIG = Config()
PLAIN = Config(edited=False)


def judge(*texts, config=CONFIG, common=None):
    """A judge of items with one text each, or of ready items."""
    made = [one if isinstance(one, Item) else Item(f"set/{number}", [one]) for number, one in enumerate(texts)]
    return Judge(index.build(made, config), config, common)


def best(text, *texts, config=CONFIG, common=None):
    """(item, kind, similarity) of the surest match, or None."""
    matches, _ = judge(*texts, config=config, common=common).look(text)
    return matches[0][:3] if matches else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Janet's  DUCKS, lay—eggs!", ["janets", "ducks", "lay", "eggs"]),
        ("1,000 = 1000; 12,34 3.5 1 234", ["1000", "1000", "12", "34", "3", "5", "1234"]),
        ("12\u202f345\u00a0678 in 2019 100 people", ["12345678", "in", "2019", "100", "people"]),
        ("$80,000 and 150%", ["80000", "and", "150"]),
        ("ﬁle Ｆｕｌｌ １２", ["file", "full", "12"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("e\u0301t\u00e9 किताबें", ["ete", "किताबें"]),
        ("我们 ab安装", ["我", "们", "ab", "安", "装"]),
        ("snake_case_name", ["snake", "case", "name"]),
        ("exam-\n  ple, two-fold—\nand", ["example", "two", "fold", "and"]),
        ("in\u00advisible z\u200be\u200dro", ["invisible", "zero"]),
        ("½ 1½ x² = x^2", ["1", "2", "1", "1", "2", "x", "2", "x", "2"]),
        ("**bo**ld <b>wo</b>rd<br>x < y &amp; &quot;z&quot;", ["bo", "ld", "word", "x", "y", "z"]),
        (r"$\frac{1}{2}\times\theta$ says \"hi\nthere\"", ["1", "2", "theta", "says", "hi", "there"]),
        ("a\\u00a0b caf\\u00e9", ["a", "b", "cafe"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@given(st.text())
@settings(deadline=None)
def test_words_are_never_empty(text):
    assert all(word and not word.isspace() for word in words(text))


@given(
    st.lists(st.sampled_from(["Tom", "has", "1,600", "well-known", "naïve", "x²", "été", "我们", "it's"]), max_size=12)
)
def test_words_do_not_depend_on_case_marks_or_spacing(parts):
    plain = words(" ; ".join(parts))
    assert words(" ;\n\t ".join(parts).upper() + " !") == plain
    assert words(" **;** ".join(f"“{part}”" for part in parts)) == plain


def reformatted(text):
    yield text.upper()
    yield text.replace("1,600", "1600").replace("’", "'")
    yield text.replace("1,600", "1 600")
    yield text.replace(" ", "\n")
    yield text.replace("breakfast", "break-\nfast").replace("muffins", "muf\u00adfins")
    yield text.replace("breakfast", "break fast").replace("friends every", "friendsevery")
    yield "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    yield " ".join(f"**{word}**" for word in text.split())
    yield text.replace(" ", "&nbsp;").replace("’", "&#8217;")
    yield "<p>" + text.replace("every", "<b>every</b>") + "</p>"
    yield text.replace("She", "\\nShe")
    yield "Before. " + text + " After."


def test_an_item_is_found_whatever_its_format():
    other = "Some other question of more than thirteen words that is not in it at all, is it?"
    for text in reformatted(QUESTION):
        assert best(text, other, QUESTION) == ("set/1", "verbatim", 1.0), text


def test_words_joined_or_split_on_every_line_are_still_the_item():
    text = (
        "Janet’s ducks lay 1,600 eg\ngs per day. She eats threefor breakfast every morning andbakes muffins "
        "for her fri\nends every day withfour. How much does she make?"
    )
    assert best(text, QUESTION, config=PLAIN) == ("set/0", "verbatim", 1.0)


def test_thirteen_words_are_evidence_and_twelve_are_not():
    inside = QUESTION.split()
    assert best("x " + " ".join(inside[3:16]) + " y", QUESTION)[1] == "verbatim"
    matches, share = judge(QUESTION).look("x " + " ".join(inside[3:15]) + " y")
    assert (matches, share) == ([], 0.0)


def test_similarity_is_the_share_of_the_items_n_grams():
    text = " ".join(f"w{n}" for n in range(22))  # ten n-grams
    half = " ".join(text.split()[:16])
    found = judge(text).look(half)[0]
    assert found[0].similarity == verdict(found, CONFIG).score == pytest.approx(0.4)
    assert verdict(found, CONFIG)[:2] == (False, "contaminated")
    assert best(half, text, config=Config(share_max=0.4)) is None
    assert best(half, text, config=Config(share_max=0.39))[2] == pytest.approx(0.4)


def test_the_best_item_is_named_and_ties_go_to_the_first():
    first = " ".join(f"a{n}" for n in range(26))
    second = " ".join(f"b{n}" for n in range(13))
    assert best(" ".join(first.split()[:13]) + " " + second, first, second)[0] == "set/1"
    assert best(second, second, second)[0] == "set/0"


def test_short_items_are_matched_whole_or_counted():
    eight, seven = "what is the colour of the winter sky", "what is the colour of the sky"
    assert best(f"He asked: {eight}?", eight)[1:] == ("verbatim", 1.0)
    assert best("what is the colour of the winter sea", eight) is None
    made = judge(Item("a/0", [eight]), Item("a/1", [seven]), Item("b/0", ["", seven]))
    assert {name: facts["too_short"] for name, facts in made.index.sets.items()} == {"a": 1, "b": 1}
    assert made.look(seven)[0] == []


PLANET = Item("mmlu/0", ["Which planet is the largest?"], ["Jupiter, by far"], ["Mars", "Jupiter, by far", "Venus"])


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("Which planet is the largest? Jupiter, by far.", True),
        ("Q: which planet is the LARGEST?\n\nA: The answer is: Jupiter by far", True),
        ("Which planet is the largest?\n(A) Mars\n(B) Jupiter, by far\n(C) Venus\n", True),
        ("Which planet is the largest? (C) Venus (A) Mars (B) Jupiter, by far", True),
        ("Which planet is the largest? Nobody knows.", False),
        ("Jupiter, by far. Which planet is the largest?", False),
        ("Which planet is the largest? " + "So they went on and asked. " * 9 + "Jupiter, by far", False),
        ("Which planet is the very largest? Jupiter, by far", False),
    ],
)
def test_short_questions_are_found_with_their_answers(text, is_found):
    assert best("They ask: " + text, PLANET) == (("mmlu/0", "answer", 1.0) if is_found else None)
    assert judge(PLANET).index.sets["mmlu"] == {"items": 1, "too_short": 0, "with_answer": 1, "of_template": 0}
    assert best(text, PLANET, config=Config(with_answer=11)) is None


STORY = (
    "A baker in the old harbour sells forty loaves every morning and thirty rolls after lunch, and on Sundays he "
    "gives a dozen buns to the ferry crew. How many pieces leave his shop within one week?"
)


def edited(text, every, how):
    parts = text.split()
    for place in range(every // 2, len(parts), every):
        parts[place] = {"substituted": "someother", "deleted": "", "inserted": parts[place] + " really"}[how]
    return " ".join(parts)


@pytest.mark.parametrize("how", ["substituted", "deleted", "inserted"])
def test_copies_with_one_word_in_eight_changed_are_found(how):
    found = best("Intro. " + edited(STORY, 8, how) + " More.", STORY)
    assert found[:2] == ("set/0", "edited")
    assert 0.8 <= found[2] < 1
    assert best(edited(STORY, 2, how), STORY) is None or how == "inserted"
    assert best(edited(STORY, 8, how), STORY, config=PLAIN) is None
    assert best(edited(STORY, 8, how), STORY, config=Config(edited_min=0.97)) is None or how == "inserted"


def test_the_same_words_in_another_order_are_no_copy():
    parts = STORY.split()
    assert best(" ".join(word for i in range(0, len(parts), 4) for word in reversed(parts[i : i + 4])), STORY) is None


def test_numbers_alone_are_no_evidence():
    assert best("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "Add 1 2 3 4 5 6 7 8 9 10 11 12 13 14 to all of it") is None
    assert judge("0 0 0 0 0 0 0 0 0").index.sets["set"]["too_short"] == 1


@given(st.lists(st.integers(1, 5), max_size=40), st.lists(st.integers(1, 5), max_size=40))
def test_the_longest_common_subsequence_is_that_of_the_table(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    masks: dict[int, int] = {}
    for place, word in enumerate(first):
        masks[word] = masks.get(word, 0) | 1 << place
    assert lcs(masks, len(first), second) == table[-1][-1]


def test_fields_of_an_item_are_looked_for_each_by_itself():
    second = " ".join(f"w{n}" for n in range(13))
    made = judge(Item("a/0", [QUESTION, second]))
    assert 0.9 < made.look(QUESTION)[0][0].similarity < 1
    assert made.look(QUESTION + " and " + second)[0][0].similarity == 1


def test_common_n_grams_are_no_evidence_without_half_of_an_item():
    long = " ".join(f"w{n}" for n in range(112))  # a hundred n-grams
    made = index.build([Item("a/0", [long])], PLAIN)
    part = " ".join(long.split()[:20])
    held = [n for n in grams_in(part, made).tolist() if n < len(made.exact)]
    assert len(held) == 8
    assert Judge(made, PLAIN, Common(weak=held)).look(part) == ([], 0.08)
    assert Judge(made, PLAIN, Common(weak=held[1:])).look(part)[0]
    everything = grams_in(long, made).tolist()
    assert Judge(made, PLAIN, Common(weak=everything)).look(long)[0][0].similarity == 1


def test_phrases_mean_nothing_and_are_left_out_of_shares():
    phrase = " ".join(f"p{n}" for n in range(30))
    own = " ".join(f"w{n}" for n in range(14))
    item = f"{phrase} {own}"
    made = index.build([Item("a/0", [item])], CONFIG)
    held = grams_in(phrase, made).tolist()
    alone = Judge(made, CONFIG, Common(weak=held, phrases=held))
    assert alone.look(phrase) == ([], 0.0)
    assert alone.look(item)[0][0].similarity == 1
    assert judge(item).look(phrase)[0]


def test_a_sets_own_template_is_no_evidence():
    prompt = "Read the following passage with care and then answer the question below it in one word only:"
    questions = [
        f"the grey {chr(97 + n)}bird number of house x{n} sings how often in a year of y{n}" for n in range(30)
    ]
    made = judge(*(f"{prompt} {question}" for question in questions))
    assert made.look(f"{prompt} something else entirely") == ([], 0.0)
    for text in (questions[3], f"{prompt} {questions[3]}"):
        assert made.look(text)[0][0][:3] == ("set/3", "verbatim", 1.0)


def test_items_of_a_template_alone_are_found_whole():
    texts = [
        f"If a train goes at a steady speed of v{n} how far will it have gone in miles before noon?" for n in range(40)
    ]
    made = judge(*texts)
    assert made.index.sets["set"]["of_template"] == 40
    assert made.look(f"Well. {texts[7]} Yes.")[0][0][:3] == ("set/7", "verbatim", 1.0)
    assert made.look("If a train goes at a steady speed of 7 how far will it have gone in miles before noon?")[0] == []


def test_no_items_drop_nothing():
    made = judge()
    assert made.look(QUESTION) == ([], 0.0)
    assert index.memory_bytes(made.index) >= 0
    assert judge(QUESTION).look("") == ([], 0.0)


WORDS = st.lists(st.sampled_from(["ape", "bee", "cat", "dog"]), max_size=60)


@given(WORDS, st.lists(st.lists(st.sampled_from(["ape", "bee", "cat"]), max_size=20), min_size=1, max_size=4))
@settings(deadline=None)
def test_the_index_finds_what_comparing_every_n_gram_finds(text, sets):
    config = Config(ngram=5, shortest=3, edited=False)
    shares = {}
    for number, item in enumerate(sets):
        size = min(5, len(item))
        grams = {tuple(item[i : i + size]) for i in range(len(item) - size + 1)} if size >= 3 else set()
        found = grams & {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
        if found:
            shares[f"s/{number}"] = pytest.approx(len(found) / len(grams))
    made = judge(*(Item(f"s/{number}", [" ".join(one)]) for number, one in enumerate(sets)), config=config)
    matches, share = made.look(" ".join(text))
    by_grams = {match.item: match.similarity for match in matches}
    assert {item: value for item, value in by_grams.items() if item in shares} == shares
    assert share == (max(by_grams[item] for item in shares) if shares else 0)


LINES = ["The first line is an ordinary one.", "Another line follows it.", QUESTION, "Answer: it is eighteen dollars.",
         "The last line ends the page."]  # fmt: skip


def test_a_cut_takes_the_items_lines_and_leaves_the_rest():
    config = Config(action="cut", shortest_rest=5)
    item = Item("gsm/0", [QUESTION], ["It is eighteen dollars"])
    document = Document("x", "\n".join(LINES), metadata={"title": "t"})
    row = decided(document, judge(item, config=config))
    assert (row["table"], row["text"]) == ("kept", "\n".join([*LINES[:2], LINES[4]]))
    facts = {"contaminated": "gsm/0", "contaminated_by": "verbatim", "contaminated_items": '["gsm/0"]'}
    characters = str(len(LINES[2]) + len(LINES[3]) + 2)
    assert row["metadata"] == {"title": "t", "contaminated_characters": characters, **facts}
    dropped = decided(document, judge(item, config=Config(action="cut", shortest_rest=50)))
    assert (dropped["table"], dropped["text"]) == ("dropped", document.text)
    assert (dropped["rule"], dropped["matched"], dropped["similarity"]) == ("contaminated", "gsm/0", 1.0)
    assert dropped["metadata"] == {"title": "t", **facts}
    clean = Document("y", LINES[0])
    assert decided(clean, judge(item, config=config))["row_hash"] == decided(clean, judge(item))["row_hash"]


def test_a_cut_leaves_nothing_that_would_be_found():
    config = Config(action="cut", shortest_rest=0)
    made = judge(QUESTION, STORY, config=config)
    text = "\n".join([LINES[0], *QUESTION.split(), LINES[1], edited(STORY, 8, "deleted"), QUESTION + STORY, LINES[4]])
    row = decided(Document("x", text), made)
    assert row["text"] == "\n".join([LINES[0], LINES[1], LINES[4]])
    assert made.look(row["text"]) == ([], 0.0)


def test_the_labelled_crawls_questions_are_those_of_the_set(data_dir):
    entry = EvaluationSet(name="gsm8k", path=str(data_dir / "eval" / "gsm8k_test_head.jsonl.gz"), fields=["question"])
    made = judge(*items.read_set(entry))
    assert made.index.sets["gsm8k"]["too_short"] == 0
    with gzip.open(data_dir / "crawl-a" / "labels.jsonl.gz", "rt") as lines:
        labels = [label for line in lines if (label := json.loads(line))["kind"] == "contaminated"]
    assert len(labels) == 40
    for label in labels:
        found, _ = made.look("Study notes\n" + label["eval_text"].replace("  ", " ") + "\nMore.")
        assert found[0].similarity == 1


def test_documents_count_for_each_set_that_they_hold():
    facts = {name: {"items": 9} for name in ("a", "b", "c")}
    found = [
        ("dropped", "verbatim", '["a/1", "a/2", "b/0"]', 2),
        ("dropped", "answer", '["a/1"]', 1),
        ("kept", "edited", '["b/7"]', 4),
    ]
    nothing = dict.fromkeys(("found", "documents", "dropped", "cut", "verbatim", "answer", "edited"), 0)
    assert counted(facts, found) == {
        "a": {"items": 9, **nothing, "found": 2, "documents": 3, "dropped": 3, "verbatim": 2, "answer": 1},
        "b": {"items": 9, **nothing, "found": 2, "documents": 6, "dropped": 2, "cut": 4, "verbatim": 2, "edited": 4},
        "c": {"items": 9, **nothing},
    }
