"""The report of a synthetic root: its numbers are the manifests', strangers' texts stay text, nothing is fetched."""

from __future__ import annotations

import html as markup
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import synthetic

from dataeng import manifest, runs, stage
from dataeng.cli import UserError
from dataeng.decontaminate.decide import counted
from dataeng.document import Document, to_row
from dataeng.recipe import Recipe
from dataeng.report import charts, documents
from dataeng.report.collect import summary
from dataeng.report.table import print_table, rows_of
from dataeng.report.write import html, main, seconds

Made = tuple[Recipe, dict[str, list[dict[str, Any]]]]


def recipe_of(root: Path, **tables: dict[str, Any]) -> Recipe:
    return Recipe("demo.toml", str(root), 3, {"filter": {"rules": ["gopher"]}, "report": {}, **tables})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("run")
    rows = synthetic.data(root)
    synthetic.training(root)
    return recipe_of(root), rows


@pytest.fixture(scope="module")
def found(made: Made) -> dict[str, Any]:
    return json.loads(json.dumps(summary(made[0])))


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> str:
    return html(found)


def test_the_funnel_is_that_of_the_manifests(made: Made, found: dict[str, Any]) -> None:
    recipe, rows = made
    assert [row["stage"] for row in found["funnel"]] == list(rows)
    for row in found["funnel"]:
        manifest = stage.need_manifest(recipe.root, row["stage"], "test")
        assert {key: row[key] for key in manifest.counts} == manifest.counts
        assert row["in"] == row["kept"] + row["dropped"]
    assert found["documents"]["in"] == len(rows["extract"])
    assert found["documents"]["kept"] == len(rows["publish"])
    assert found["documents"]["in"] == found["documents"]["kept"] + found["documents"]["dropped"]
    fallen = Counter((row["stage"], row["rule"]) for own in rows.values() for row in own if row["table"] == "dropped")
    assert {(r["stage"], r["rule"]): r["count"] for r in found["documents"]["dropped_by"]} == fallen


def test_every_rule_has_examples_and_every_number_stands_on_the_page(found: dict[str, Any], page: str) -> None:
    rules = {(r["stage"], r["rule"]) for r in found["documents"]["dropped_by"]}
    assert {(group["stage"], group["rule"]) for group in found["examples"]} == rules
    for group in found["examples"]:
        assert 0 < len(group["examples"]) <= min(3, group["count"])
        assert all(example["url"] in page for example in group["examples"])
    for row in found["funnel"]:
        assert f"{row['in']:,}" in page


def test_strangers_texts_stay_text(found: dict[str, Any], page: str) -> None:
    texts = [e["text"] for group in found["examples"] for e in group["examples"] if "text" in e]
    assert any(synthetic.MARKUP in text for text in texts)
    assert markup.escape(synthetic.MARKUP, quote=False) in page.replace("&#39;", "'")
    assert "<script" not in page


def test_texts_of_extraction_never_reach_the_report(found: dict[str, Any], page: str) -> None:
    assert synthetic.SECRET not in page + json.dumps(found)
    assert not [
        e for group in found["examples"] if group["stage"] == "extract" for e in group["examples"] if "text" in e
    ]


def test_texts_of_an_ingest_by_another_name_are_raw_too() -> None:
    def stage_with(name: str, *tables: str) -> runs.Published:
        named = {table: manifest.TableEntry() for table in tables}
        found = manifest.Manifest(stage=name, version=1, attempt="a", fingerprint="f", config={}, tables=named)
        return runs.Published(name, f"run/{name}", found)

    assert documents.is_raw(stage_with("books", "kept", "dropped", "captures"))
    assert documents.is_raw(stage_with("extract", "kept", "dropped"))
    assert not documents.is_raw(stage_with("filter", "kept", "dropped"))


@pytest.mark.parametrize("text", ["mail bob@mail.acme.com now", "call +1 415 555 2671 now", "from 8.8.8.8 came"])
def test_examples_are_masked_once_more(text: str) -> None:
    assert documents.safe(text) != text


def test_the_page_fetches_nothing(page: str) -> None:
    without_texts = re.sub(r">[^<]*<", "><", page)
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?(?!#)[^"'\s>]+""", without_texts)
    assert "default-src 'none'" in page


def test_tags_are_balanced(page: str) -> None:
    for tag in ("div", "section", "table", "tr", "td", "th", "details", "svg", "ul", "li", "span"):
        assert len(re.findall(rf"<{tag}[\s>]", page)) == len(re.findall(rf"</{tag}>", page)), tag


def test_histograms_hold_every_sampled_document(made: Made, found: dict[str, Any]) -> None:
    rows = made[1]["filter"]
    scores = {one["score"]: one for one in found["scores"]}
    for name, one in scores.items():
        for table in ("kept", "dropped"):
            assert sum(one["counts"][table]) == sum(row["table"] == table and name in row["scores"] for row in rows)
    words = scores["gopher.mean_word_length"]
    limits = {(limit["bound"], limit["value"]) for limit in words["thresholds"]}
    assert {("min", 3.0), ("max", 6.0), ("max", 10.0)} <= limits  # of dropped rows, and of the recipe


def test_the_funnels_by_language_and_host_hold_every_document(made: Made, found: dict[str, Any], page: str) -> None:
    rows = made[1]
    for name in ("language", "host"):
        breakdown = found["groups"][name]
        assert breakdown["exact"]
        for stage_name in rows:
            fallen = sum(row["table"] == "dropped" for row in rows[stage_name])
            assert sum(row["counts"].get(stage_name, 0) for row in breakdown["rows"]) == fallen
        assert sum(row["counts"].get("kept", 0) for row in breakdown["rows"]) == len(rows["publish"])
        assert sum(row["documents"] for row in breakdown["rows"]) == len(rows["extract"])
        assert all(row["group"] in page for row in breakdown["rows"])
    languages = Counter(row["language"] or "not known" for row in rows["publish"])
    by_language = {row["group"]: row["counts"].get("kept", 0) for row in found["groups"]["language"]["rows"]}
    assert {name: n for name, n in by_language.items() if n} == languages


def test_groups_beyond_the_named_ones_are_summed(made: Made) -> None:
    recipe = made[0]
    few = summary(Recipe(recipe.path, recipe.root, 3, recipe.tables | {"report": {"groups": 1}}))["groups"]["host"]
    assert [row["group"] for row in few["rows"]][1:] in ([], ["others"])
    assert sum(row["documents"] for row in few["rows"]) == len(made[1]["extract"])


def test_beside_each_threshold_stand_the_nearest_of_both_sides(made: Made, found: dict[str, Any]) -> None:
    rows = made[1]["filter"]
    assert found["borders"]
    for border in found["borders"]:
        score, threshold = border["score"], border["threshold"]
        kept = sorted(
            abs(r["scores"][score] - threshold) for r in rows if r["table"] == "kept" and score in r["scores"]
        )
        fell = [r for r in rows if documents.score_of(r["rule"] or "") == score and r["bound"] == border["bound"]]
        nearest = sorted(abs(r["score"] - threshold) for r in fell)
        assert [abs(e["value"] - threshold) for e in border["kept"]] == pytest.approx(kept[:3], abs=1e-5)
        assert [abs(e["value"] - threshold) for e in border["dropped"]] == pytest.approx(nearest[:3], abs=1e-5)


def test_a_sample_depends_on_ids_alone(made: Made, tmp_path: Path) -> None:
    rows = made[1]["filter"]
    for parts, folder in ((1, "a"), (5, "b")):
        synthetic.publish(tmp_path / folder, "filter", rows, parts=parts)
    both = []
    for folder in ("a", "b"):
        recipe = recipe_of(tmp_path / folder, report={"sample": 100})
        both.append(summary(recipe))
    assert both[0]["scores"] == both[1]["scores"]
    assert both[0]["examples"] == both[1]["examples"]
    assert both[0]["scores"][0]["sampled"] < len(rows)


def test_clusters_are_counted_with_their_survivor(made: Made, found: dict[str, Any]) -> None:
    sizes = Counter(row["duplicate_of"] for row in made[1]["dedup"] if row["duplicate_of"])
    assert found["duplicates"]["clusters"] == len(sizes)
    assert found["duplicates"]["removed"] == sum(sizes.values())
    largest = found["duplicates"]["largest"]
    assert [c["size"] for c in largest] == sorted((n + 1 for n in sizes.values()), reverse=True)[: len(largest)]
    assert all(cluster["url"] for cluster in largest)


def test_models_stand_in_the_order_in_which_they_were_made(found: dict[str, Any], page: str) -> None:
    assert [m["model"] for m in found["evaluation"]["models"]] == ["pretrain", "sft", "grpo"]
    assert found["sweeps"][0]["trials"][0]["config"] == found["sweeps"][0]["best"]["config"]
    assert [one["name"] for one in found["training"]] == ["pretrain", "sft", "reward", "grpo"]
    assert len(found["training"][1]["curves"]["loss"]) <= 400
    assert page.count("<polyline") >= 8


def test_the_tokenizers_fertility_is_shown_by_language(found: dict[str, Any], page: str) -> None:
    assert found["tokens"][0]["fertility"]["en"]["tokens_per_word"] == 1.4
    assert re.search(
        r'<th scope="row">en</th><td class="n">1.40</td><td class="n">4.20</td><td class="n">1,530</td>', page
    )


def test_what_was_gained_is_said_with_its_error(page: str) -> None:
    assert "+7.8 ± 1.5" in page
    assert "50.6 %" in page


@pytest.mark.parametrize(("mode", "order"), [("min", [2, 3, 1, 4]), ("max", [3, 2, 1, 4])])
def test_a_trial_stopped_early_does_not_stand_first(tmp_path: Path, mode: str, order: list[int]) -> None:
    facts = ((1, 0.1, 5), (2, 2.0, 10), (3, 3.0, 10), (4, None, 10))
    trials = [{"config": {"a": number}, "metric": metric, "steps": steps} for number, metric, steps in facts]
    synthetic.publish(tmp_path, "tune", details={"trials": trials, "mode": mode, "best": trials[1]})
    sweep = summary(recipe_of(tmp_path))["sweeps"][0]
    assert [trial["config"]["a"] for trial in sweep["trials"]] == order


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    synthetic.publish(tmp_path, "tune", details={"trials": [{"config": {"a": 1}, "metric": float("nan"), "steps": 1}]})
    main(recipe_of(tmp_path))
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["sweeps"][0]["trials"][0]["metric"] is None


def test_the_table_says_what_a_run_ends_with(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_table(found)
    printed = capsys.readouterr().out
    for word in (
        "documents in",
        "dedup: near_duplicate",
        "1,160,000",
        "0.582 / 0.428",
        "26.10",
        "learning_rate = 0.003",
    ):
        assert word in printed
    names = [name.strip() for name, _ in rows_of(found)]
    assert names[-1] == "together"
    assert all(step["name"] in names for step in found["steps"])


def test_a_run_of_data_alone_has_a_report_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.data(tmp_path, 60)
    main(recipe_of(tmp_path))
    found = json.loads((tmp_path / "summary.json").read_text())
    assert not {"training", "sweeps", "evaluation", "answers", "tokens"} & found.keys()
    assert 'id="training"' not in (tmp_path / "report.html").read_text()
    assert str(tmp_path / "report.html") in capsys.readouterr().out.replace("\n", "")


def test_a_stage_that_was_given_nothing_is_no_trouble(tmp_path: Path) -> None:
    synthetic.publish(tmp_path, "extract", [])
    found = summary(recipe_of(tmp_path))
    assert "documents" not in found
    assert "The run" in html(found)


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    synthetic.training(tmp_path)
    path = tmp_path / "sft" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 471, "lo')
    sft = next(one for one in summary(recipe_of(tmp_path))["training"] if one["name"] == "sft")
    assert sft["steps"] == 470


def test_no_run_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        summary(recipe_of(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("value", "words"), [(None, "–"), (4.24, "4.2 s"), (187, "3 min 7 s"), (7500, "2 h 5 min"), (3599.8, "1 h 0 min")]
)
def test_durations_are_said_as_people_do(value: float | None, words: str) -> None:
    assert seconds(value) == words


def test_thresholds_are_those_that_the_stage_ran_with(tmp_path: Path, made: Made) -> None:
    synthetic.publish(tmp_path, "filter", made[1]["filter"])
    path = tmp_path / "filter" / "manifest.json"
    ran = Recipe("x", str(tmp_path), 0, {"filter": {"rules": ["gopher"], "gopher": {"mean_word_length_max": 7.5}}})
    manifest = json.loads(path.read_text()) | {"config": ran.step("filter").model_dump(mode="json")}
    path.write_text(json.dumps(manifest))
    scores = {one["score"]: one for one in summary(recipe_of(tmp_path))["scores"]}
    assert {"bound": "max", "value": 7.5} in scores["gopher.mean_word_length"]["thresholds"]
    assert {"bound": "max", "value": 10.0} not in scores["gopher.mean_word_length"]["thresholds"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 25, 50, 75, 100]), (0.2, 0.31, [0.2, 0.25, 0.3]), (5, 5, [5])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_a_moving_average_keeps_straight_lines() -> None:
    line = [[float(x), 3.0 * x] for x in range(50)]
    assert [y for _, y in charts.smoothed(line)] == pytest.approx([y for _, y in line])


def test_contamination_is_listed_by_set(tmp_path: Path) -> None:
    facts = {name: {"items": 164, "too_short": 17, "with_answer": 3} for name in ("gsm8k", "he")}
    sets = counted(facts, [("dropped", "edited", '["gsm8k/1", "gsm8k/2"]', 5), ("kept", "verbatim", '["he/0"]', 6)])
    rows = [to_row(Document("x", "text"))]
    synthetic.publish(tmp_path, "decontaminate", rows, details={"sets": sets, "ngrams": 123_456})
    found = summary(recipe_of(tmp_path))
    assert found["contamination"]["sets"] == sets
    assert {key: found["contamination"][key] for key in ("cut", "items")} == {"cut": 6, "items": 3}
    text = html(found)
    row = re.search(r'<th scope="row" class="mono">gsm8k</th>(.*?)</tr>', text)
    assert row is not None
    assert re.findall(r">(\d+)<", row[1]) == ["164", "17", "3", "2", "5", "0", "0", "0", "5"]
