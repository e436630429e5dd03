"""The quality rule with the spam model that ships: what it drops, and that it is what its figures say."""

from __future__ import annotations

import json
import tomllib

import pytest

from dataeng import train_classifier as logic
from dataeng.cli import UserError
from dataeng.document import Document
from dataeng.filter import Config, apply, quality, toxicity

SPAM = (
    "Cheap viagra and cialis shipped overnight, no prescription needed! Lowest prices online, order your meds now, "
    "100 % satisfaction guaranteed, click here and save 80 %.",
    "Dear friend, I am the son of the late minister of finance. I seek your assistance to transfer the sum of "
    "USD 25,000,000 out of the country; for your trust you will receive thirty percent. Reply in strict confidence.",
    "Hot stock alert! This company is set to explode: current price $0.35, target price $2.00. Investors, buy now "
    "before the news is out. Forward-looking statements involve risks.",
)
PLAIN = (
    "The installer asks for a host name and an address. Where a server on the network hands them out, accept what "
    "it proposes; otherwise ask whoever looks after the network.",
    "The mill stands where the river bends. For two hundred years grain was brought here by boat, and the stones "
    "turned day and night until the railway came.",
    "Call open with the name of a file and it returns an object; read gives its text, and close frees it.",
    "Thanks for the notes from Tuesday's meeting. I shall send the revised draft to the committee by Friday.",
)


@pytest.mark.parametrize("text", SPAM)
def test_spam_is_dropped(text):
    row = apply(Document("x", text, language="en"), Config(rules=["quality"]))
    assert (row["table"], row["rule"], row["bound"]) == ("dropped", "quality", "min")


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays(text):
    assert apply(Document("x", text, language="en"), Config(rules=["quality", "toxicity"]))["table"] == "kept"


def test_other_languages_are_left_alone_and_unknown_ones_are_scored():
    config = quality.Config()
    assert quality.scores(Document("x", SPAM[0], language="de"), config) == {}
    assert quality.decide({}, config).keep
    assert quality.scores(Document("x", SPAM[0]), config) == quality.scores(
        Document("x", SPAM[0], language="en"), config
    )


@pytest.mark.parametrize(("rule", "named"), [(quality, "ok, spam"), (toxicity, "ok, toxic")])
def test_a_label_that_the_model_does_not_have_is_named(rule, named):
    with pytest.raises(UserError, match=f"knows no label 'good'; its labels: {named}"):
        rule.scores(Document("x", PLAIN[0]), rule.Config(label="good"))


def test_the_default_model_enters_the_fingerprint():
    assert Config(rules=["quality"]).files() == [str(quality.MODEL)]
    assert Config(rules=["quality"], quality={"model": "mine.ftz"}).files() == ["mine.ftz"]


def test_the_shipped_figures_are_those_of_the_shipped_model(repo, data_dir):
    """Held-back mails once more; those that stand in the labelled crawl are among them here, so shares may differ."""
    facts = json.loads(quality.MODEL.with_suffix(".json").read_text())
    table = tomllib.loads((repo / "configs" / "classifiers.toml").read_text())["train_spam"]
    del table["step"]
    config = logic.Config(**table | {"data": str(data_dir)})
    _, held = logic.split(logic.limited(config, config.input[0]), config)
    found = logic.metrics(quality.MODEL.read_bytes(), held, config)["held_back"]["all"]
    stated = facts["held_back"]["quality/spam_ham.jsonl.gz"]
    assert found["examples"] >= stated["examples"] > 200
    assert found["confusion"]["false_positives"] == pytest.approx(stated["confusion"]["false_positives"], abs=1)
    assert found["positive"]["recall"] == pytest.approx(stated["positive"]["recall"], abs=0.04)
    assert found["roc_auc"] == pytest.approx(stated["roc_auc"], abs=0.02)
    assert facts["threshold"] == pytest.approx(1 - quality.Config().threshold)


def test_the_shipped_model_is_small_and_tells_mails_apart():
    facts = json.loads(quality.MODEL.with_suffix(".json").read_text())
    mails = facts["held_back"]["quality/spam_ham.jsonl.gz"]
    assert quality.MODEL.stat().st_size == facts["bytes"] <= 2_000_000
    assert mails["positive"]["precision"] >= 0.9
    assert mails["positive"]["recall"] >= 0.8
    assert sum(mails["confusion"].values()) == mails["examples"]
