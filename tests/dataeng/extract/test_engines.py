"""Engines by name, unknown library versions, the checked sample."""

from __future__ import annotations

import sys

import pytest

from dataeng import stage
from dataeng.cli import UserError
from dataeng.extract import Config, engines
from dataeng.extract.page import Task, work
from dataeng.recipe import load

PROSE = "This paragraph says something that a reader would want to keep, and it is said at some length here. "
PAGE = f"<!doctype html><html><body><article><h1>Mills</h1><p>{PROSE * 3}</p></article></body></html>"


def task(html: str = PAGE, **more) -> Task:
    return Task(html.encode(), "text/html; charset=utf-8", 60_000, 250, 25, **more)


@pytest.fixture
def own_engine(tmp_path, monkeypatch):
    (tmp_path / "own_engine.py").write_text("def shout(html, url):\n    return f'{url} ' + 'LOUD WORDS ' * 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_engine", raising=False)
    engines.engine_of.cache_clear()
    return tmp_path / "own_engine.py"


def test_a_function_of_the_users_is_an_engine(own_engine):
    found = work(task(engine="own_engine:shout", url="https://example.org/"))
    assert found.text == "https://example.org/ " + ("LOUD WORDS " * 5).strip()
    assert found.metadata["extract_path"] == "own_engine:shout"


def test_another_function_body_is_another_result(own_engine):
    config = Config(input=["x"], engine="own_engine:shout")
    before = stage.fingerprint(config, 0, [])
    own_engine.write_text(own_engine.read_text() + "\n# changed\n")
    assert stage.fingerprint(config, 0, []) != before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("trafilatur", "no such engine"),
        ("json:", "no such engine"),
        ("no_such_module:f", "no module named"),
        ("json:no_such_function", "has no function"),
        ("json:__doc__", "has no function"),
    ],
)
def test_an_unknown_engine_is_a_users_mistake(tmp_path, name, says):
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'root = "{tmp_path}"\n[extract]\ninput = ["x"]\nengine = "{name}"\n')
    with pytest.raises(UserError, match=says) as error:
        load([str(recipe)])
    assert "extract.engine" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_versions_go_to_plain_trafilatura(monkeypatch, caplog):
    monkeypatch.setattr(engines, "QUICK_KNOWS", {"trafilatura": ("0.0.1",)})
    engines.quick_is_known.cache_clear()
    engines.engine_of.cache_clear()
    try:
        assert work(task()).metadata["extract_path"] == "trafilatura"
        assert "plain trafilatura runs" in caplog.text
    finally:
        monkeypatch.undo()
        engines.quick_is_known.cache_clear()
        engines.engine_of.cache_clear()
    assert work(task()).metadata["extract_path"].startswith("quick:")


@pytest.mark.parametrize("error", [ValueError, AttributeError])
def test_a_page_on_which_quick_fails_goes_to_plain_trafilatura(monkeypatch, error):
    def fail(_tree, _page):
        raise error

    monkeypatch.setattr("dataeng.extract.quick.extract", fail)
    found = work(task())
    assert found.metadata["extract_path"] == "trafilatura"
    assert PROSE.strip() in found.text


@pytest.mark.parametrize(
    ("one", "other", "f1"),
    [
        ("", "", 1.0),
        ("a b", "a b", 1.0),
        ("a b", "b  a\n", 1.0),
        ("a b", "c", 0.0),
        ("a a", "a b", 0.5),
        ("a", "", 0.0),
    ],
)
def test_agreement_counts_words(one, other, f1):
    assert engines.agreement(one, other) == f1


def test_a_checked_page_says_how_far_it_agrees():
    assert work(task(check=True)).metadata["extract_agreement"] == "1.0000"
    assert work(task(check=True)).text == work(task()).text
    assert "extract_agreement" not in work(task()).metadata
    assert float(work(task(check=True, engine="resiliparse")).metadata["extract_agreement"]) > 0.9


def test_counts_of_checked_pages():
    assert engines.check_counts([]) == {}
    assert engines.check_counts([1.0, 0.9, 0.25]) == {"checked": 3, "checked_agreeing": 2, "checked_sum": 2.15}
