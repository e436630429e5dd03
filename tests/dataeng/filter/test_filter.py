"""The step's logic: order of rules, what a dropped row keeps, models and configuration."""

from __future__ import annotations

import pickle

import pytest

from dataeng import stage
from dataeng.cli import UserError
from dataeng.document import Document, from_row
from dataeng.filter import Config, apply, classifier, language, limits, personal_data, quality, toxicity
from dataeng.recipe import KeyProblem, build
from tests.dataeng.filter.test_rules import CLEAN

GERMAN = "Dieses Handbuch beschreibt, wie man das System auf einem neuen Rechner einrichtet und benutzt. "
DIRTY = "Write to jane@roe.org, +1 212 555 0100, 11.0.0.1. "


def test_rules_run_in_order_and_stop_at_the_first_that_drops():
    config = Config(rules=["fineweb", "gopher", "personal_data"])
    row = apply(Document("x", "short"), config)
    assert (row["table"], row["stage"], row["rule"], row["bound"]) == (
        "dropped", "filter", "fineweb.line_punctuation", "min")  # fmt: skip
    assert row["score"] == 0
    assert row["threshold"] == 0.12
    assert not any(name.startswith("gopher") for name in row["scores"])


def test_kept_rows_keep_their_scores():
    row = apply(Document("x", CLEAN, scores={"extract.seconds": 1.0}), Config(rules=["gopher", "personal_data"]))
    assert row["table"] == "kept"
    assert row["rule"] is None
    assert row["scores"]["gopher.words"] == 100
    assert row["scores"]["masked.email"] == 0
    assert row["scores"]["extract.seconds"] == 1.0


@pytest.mark.parametrize("rules", [["gopher"], ["gopher", "personal_data"], ["personal_data", "gopher"]])
def test_dropped_rows_are_masked_whatever_the_rules(rules):
    document = Document("x", DIRTY, url="http://a.org/?m=jane@roe.org", metadata={"author": "jane@roe.org"})
    row = apply(document, Config(rules=rules))
    assert row["rule"] == "gopher.words.min"
    assert row["text"] == "Write to <EMAIL>, <PHONE>, <IP>. "
    assert "jane" not in str(row)
    raw = apply(document, Config(rules=rules, keep_raw=True))
    assert (raw["text"], raw["url"]) == (DIRTY, document.url)


def test_a_dropped_row_has_the_text_that_entered_and_the_language_found():
    text = "Menu\n" + GERMAN * 3
    row = apply(Document("x", text), Config(rules=["language", "c4"]))
    assert row["rule"] == "c4.sentences"
    assert row["text"] == text
    assert row["language"] == "de"
    assert row["scores"]["c4.lines_without_end"] == 1


def test_language_keep_and_threshold():
    document = Document("x", GERMAN)
    for keep, kept in (([], True), (["de"], True), (["en", "de"], True), (["en"], False)):
        row = apply(document, Config(rules=["language"], language={"keep": keep}))
        assert (row["table"] == "kept") == kept
        assert row["language"] == "de"
    row = apply(document, Config(rules=["language"], language={"keep": ["de"], "threshold": 1.0}))
    assert row["rule"] == "language"
    assert row["score"] == row["language_score"] < 1
    off = Config(rules=["language"], language={"threshold": 1.0})
    assert apply(document, off)["table"] == "kept"
    assert limits(off) == []


@pytest.mark.parametrize("text", ["", None, "1234 :-) ...", "\x00", "\ud800 \udfff"])
def test_language_of_texts_without_letters_is_unknown(text):
    row = apply(Document("x", text), Config(rules=["language"]))
    assert (row["language"], row["language_score"]) == (None, 0.0)


def test_chinese_with_commands_is_chinese():
    text = "请注意，这里的例子基于安装过程。\n" + "mount -t iso9660 /dev/cdrom /mnt && ls -l /mnt/dists\n"
    assert language.predict(text * 9, language.load(language.default_model()))[0] == "zh"


def test_long_texts_are_sampled_evenly():
    assert language.sample("x" * 10_000) == "x" * 10_000
    text = "".join(f"{n:05d}" for n in range(10_000))
    stretches = language.sample(text).split(" ")
    assert [len(one) for one in stretches] == [2500] * 4
    assert stretches[0] == text[:2500]
    assert text.index(stretches[3]) > 47_490


def test_norwegian_goes_by_one_code():
    text = "Jeg vet ikke hva jeg skal gjøre nå, men vi får se hvordan det går. Det ble sent i går kveld."
    assert apply(Document("x", text), Config(rules=["language"], language={"keep": ["nb"]}))["table"] == "kept"


def test_default_models_enter_the_fingerprint(tmp_path, monkeypatch):
    config = Config(rules=["language"])
    assert config.files() == [language.default_model()]
    before = stage.fingerprint(config, 0, [])
    other = tmp_path / "other.ftz"
    other.write_bytes(b"another model")
    monkeypatch.setattr(language, "default_model", lambda: str(other))
    assert stage.fingerprint(config, 0, []) != before


def test_how_dropped_texts_are_masked_enters_the_fingerprint(monkeypatch):
    configs = [Config(rules=["gopher"]), Config(rules=["gopher"], keep_raw=True)]
    before = [stage.fingerprint(config, 0, []) for config in configs]
    assert stage.fingerprint(Config(rules=["gopher"], personal_data={}), 0, []) == before[0]
    monkeypatch.setattr(personal_data.Config, "version", 99)
    masked, raw = (stage.fingerprint(config, 0, []) for config in configs)
    assert masked != before[0]
    assert raw == before[1]


def test_tables_of_rules_not_in_use_change_nothing_that_is_read():
    assert Config(rules=["gopher"], quality={"model": "nowhere.bin"}).files() == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rules": ["gopher", "gopher"]}, "named twice"),
        ({"rules": ["gophr"]}, "no such rule"),
        ({"rules": ["bounds"]}, "not a rule"),
        ({"language": {"treshold": 1}}, "unknown key"),
        ({"language": {"threshold": 65}}, "less than or equal to 1"),
        ({"language": {"keep": ["English"]}}, "language.keep.0"),
        ({"rules": ["quality"], "quality": {"threshold": 20}}, "less than or equal to 1"),
        ({"rulez": []}, "unknown key"),
    ],
)
def test_mistakes_in_the_recipe_are_named(values, says):
    with pytest.raises(KeyProblem, match=says):
        build(Config, "filter", values)


def test_models_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.bin"):
        language.load(str(tmp_path / "nowhere.bin"))
    (tmp_path / "bad.bin").write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a fastText model"):
        language.load(str(tmp_path / "bad.bin"))
    with pytest.raises(UserError, match="knows no label 'toxic'"):
        classifier.model_with(language.default_model(), "toxic")


def test_tokens_and_windows():
    assert classifier.tokens("@you &amp; I: DON'T go to https://a.b/c sh*t!!") == [
        "i",
        "don't",
        "go",
        "to",
        "sh*t",
        "!!",
    ]
    text = " ".join(f"w{number}" for number in range(25))
    assert [len(line.split()) for line in classifier.windows(text, 10)] == [10, 10, 5]
    assert [len(line.split()) for line in classifier.windows(text[:-4], 10)] == [10, 14]
    assert classifier.windows("", 10) == [""]


def test_quality_is_the_mean_of_a_users_model():
    model = language.default_model()
    config = quality.Config(model=model, label="de", window_words=14, threshold=0.6)
    scores = quality.scores(
        Document("x", GERMAN + "The manual says how one sets the system up on a new computer."), config
    )
    assert 0.4 < scores["quality"] < 0.6
    assert quality.decide(scores, config).bound == "min"
    assert quality.decide(quality.scores(Document("x", GERMAN), config), config).keep


def test_toxicity_is_that_of_the_worst_window():
    config = toxicity.Config()
    abuse = "You are a stupid worthless idiot, shut up you pathetic moron. "
    clean = "The manual explains how to install the system and to configure the network. "
    rows = {text: toxicity.scores(Document("x", text, language="en"), config)["toxicity"] for text in (abuse, clean)}
    assert rows[abuse] > config.threshold > rows[clean]
    buried = clean * 60 + abuse * 12 + clean * 60
    assert not toxicity.decide(toxicity.scores(Document("x", buried, language="en"), config), config).keep
    assert toxicity.scores(Document("x", abuse, language="de"), config) == {}
    assert toxicity.scores(Document("x", abuse), config) == {"toxicity": rows[abuse]}
    assert toxicity.scores(Document("x", ""), config) == {"toxicity": 0.0}


def test_what_a_config_remembers_is_no_part_of_it():
    """Bounds and hashes are derived once: they travel to workers, and change neither manifests nor fingerprints."""
    config, fresh = (Config(rules=["gopher", "c4", "fineweb", "lines"]) for _ in range(2))
    row = apply(Document("x", CLEAN, language="en"), config)
    assert config.model_dump() == fresh.model_dump()
    assert stage.fingerprint(config, 0, []) == stage.fingerprint(fresh, 0, [])
    assert apply(Document("x", CLEAN, language="en"), pickle.loads(pickle.dumps(config))) == row  # noqa: S301 — its own


def test_apply_is_pure_and_survives_a_round_trip():
    document = Document("x", GERMAN * 3, metadata={"title": "Handbuch"})
    config = Config(rules=["language", "gopher", "personal_data"])
    first = apply(document, config)
    assert document.scores == {}
    assert apply(document, config) == first
    assert from_row(first).metadata == {"title": "Handbuch"}
