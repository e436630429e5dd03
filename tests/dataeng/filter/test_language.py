"""Languages: close ones told apart, codes of other models, thresholds by language, mixed documents."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from dataeng.document import Document
from dataeng.filter import language
from dataeng.filter.language import Config
from dataeng.filter.language_codes import canonical, split_label
from dataeng.filter.language_marks import evidence, second_look

GERMAN = "Dieses Handbuch beschreibt, wie man das System auf einem neuen Rechner einrichtet und benutzt. "
ENGLISH = "This manual explains how one sets the system up on a new computer and how it is used every day. "

CLOSE = [
    ("Dit is nie 'n maklike taak nie, sê hy.", "af"),
    ("Eg veit ikkje kva eg skal gjera no.", "nn"),
    ("Jag vet inte vad jag ska göra nu.", "sv"),
    ("Tiež už nie je možné, aby ľudia čakali.", "sk"),
    ("Waxaa la sheegay in uu yahay nin wanaagsan oo ka yimid magaalada.", "so"),
    ("Ìlú kan tí ó wà ní orílẹ̀ èdè Nàìjíríà ni.", "yo"),
    ("Яна ўжо не была дома, калі ён прыйшоў.", "be"),
    ("THE LIBRARY IS OPEN ON MONDAY AND ON FRIDAY.", "en"),
]


@pytest.mark.parametrize(("text", "code"), CLOSE)
def test_close_languages_are_told_apart(text, code):
    assert language.predict(text, language.load(language.default_model()))[0] == code


LABELS = [
    ("__label__eng_Latn", ("en", "Latn")),
    ("__label__cmn_Hani", ("zh", "Hani")),
    ("__label__arb_Arab", ("ar", "Arab")),
    ("__label__ekk_Latn", ("et", "Latn")),
    ("__label__nob_Latn", ("no", "Latn")),
    ("__label__als_Latn", ("sq", "Latn")),  # Tosk in ISO 639-3; Alemannic in lid.176
    ("__label__als", ("als", None)),
    ("__label__ceb_Latn", ("ceb", "Latn")),
    ("__label__nb", ("no", None)),
    ("__label__de", ("de", None)),
]


@pytest.mark.parametrize(("label", "expected"), LABELS)
def test_labels_of_both_kinds(label, expected):
    assert split_label(label) == expected


class Glot:
    """A model with GlotLID's labels that takes everything for English."""

    def predict(self, line, number, least, errors):
        return [(0.97, "__label__eng_Latn"), (0.02, "__label__deu_Latn")][:number]


def test_the_script_of_a_model_that_says_it_is_kept(monkeypatch):
    monkeypatch.setattr(language, "load", lambda path: Glot())
    found = language.transform(Document("x", ENGLISH), Config())
    assert (found.language, found.language_score, found.metadata) == ("en", 0.97, {"script": "Latn"})


def judged(text, **config):
    made = Config(**config)
    return language.decide(language.scores(language.transform(Document("x", text), made), made), made)


def test_single_languages_have_thresholds_of_their_own():
    assert judged(GERMAN, keep=["de"]).keep
    verdict = judged(GERMAN, keep=["de"], thresholds={"de": 1.0})
    assert verdict[:2] == (False, "language.de")
    assert verdict.threshold == 1.0
    assert judged(GERMAN, threshold=1.0, keep=["de"], thresholds={"de": 0.5}).keep
    assert not judged(ENGLISH, threshold=1.0, keep=["de", "en"], thresholds={"de": 0.5}).keep
    assert judged(ENGLISH, keep=["de"], thresholds={"en": 0.1}).rule == "language"
    assert not judged(GERMAN, thresholds={"de": 1.0}).keep


def test_a_threshold_of_the_wrong_scale_is_refused():
    for values in ({"thresholds": {"de": 65}}, {"threshold": -1}, {"thresholds": {"German": 0.5}}):
        with pytest.raises(ValueError, match="validation error"):
            Config(**values)


def test_mixed_documents_are_marked():
    mixed = language.transform(Document("x", GERMAN * 40 + ENGLISH * 20), Config())
    assert mixed.metadata["languages"] == "de,en"
    assert 0.2 < mixed.scores["language_mixed"] < 0.5
    for plain in (GERMAN * 40, ENGLISH * 40, ENGLISH):
        found = language.transform(Document("x", plain), Config())
        assert "languages" not in found.metadata
        assert "language_mixed" not in found.scores


def test_evidence_is_bounded_and_probabilities_add_up():
    assert max(evidence("ikkje " * 500).values()) == 8.0
    found = second_look({"no": 0.5, "da": 0.3}, evidence("Eg veit ikkje kva dei vart"))
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=lambda name: found[name]) == "nn"
    assert second_look({"en": 0.4, "de": 0.2}, {})["en"] == pytest.approx(2 / 3)


def test_macro_accuracy_on_labelled_sentences(data_dir):
    model = language.load(language.default_model())
    known = {split_label(name)[0] for name in model.getLabels("strict")[0]}
    right, total = Counter(), Counter()
    with gzip.open(data_dir / "langid" / "sentences.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            if canonical(row["lang"]) in known:
                total[row["lang"]] += 1
                right[row["lang"]] += language.predict(row["text"], model)[0] == canonical(row["lang"])
    assert len(total) == 67  # with Norwegian twice, as nb and nn
    assert sum(right[name] / total[name] for name in total) / len(total) >= 0.91
