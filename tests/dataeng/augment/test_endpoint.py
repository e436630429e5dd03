"""An endpoint and its faults, over real connections: tried again, counted, and never asked twice."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from chat_server import completion, serving, shout, sleeping
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.augment import Config, Endpoint, Paraphrase
from dataeng.augment.endpoint import GIVE_UP, Answer, Client, Unanswered, cleaned, parse
from dataeng.augment.rewrite import filled, pieces, rewrite
from dataeng.cli import Failure


def client(url: str, folder: Path, key: str | None = None, **settings: Any) -> Client:
    more = {"first_pause": 0.01, "retries": 2, "timeout_seconds": 5} | settings
    return Client(Endpoint(base_url=url, model="m", **more), str(folder), key)


def test_an_answer_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    with serving() as server:
        first = client(server.url, tmp_path, key="secret").ask("Say:\n\nhello", 1)
        assert first == Answer("HELLO", 7, 3)
        assert client(server.url, tmp_path).ask("Say:\n\nhello", 1) == first  # another task, another run
        assert client(server.url, tmp_path).ask("Say:\n\nhello", 2) == first
    assert [request["seed"] for request in server.requests] == [1, 2]
    assert server.requests[0]["model"] == "m"
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "Authorization" not in server.headers[1]
    assert client("http://127.0.0.1:9/v1", tmp_path).ask("Say:\n\nhello", 1) == first  # nobody listens there
    assert "secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


FAULTS = [
    (500, b"oops", {}, "http_500"),
    (429, b"", {"Retry-After": "0"}, "http_429"),
    (200, b"not json", {}, "malformed"),
    (200, b'{"choices": []}', {}, "malformed"),
    (200, b"[" * 100_000, {}, "malformed"),
    (200, completion(""), {}, "empty"),
    (200, completion(None), {}, "empty"),
    (200, completion(" \n\0"), {}, "empty"),
    (200, completion("half a sen", "length"), {}, "cut_off"),
    (200, b" " * (5 << 20), {}, "too_long"),
]


@pytest.mark.parametrize(("status", "body", "headers", "reason"), FAULTS)
def test_a_fault_that_passes_costs_another_request(
    tmp_path: Path, status: int, body: bytes, headers: dict[str, str], reason: str
) -> None:
    def reply(request: dict[str, Any], number: int) -> tuple[int, bytes, dict[str, str]]:
        return shout(request, number) if number == 1 else (status, body, headers)

    with serving(reply) as server:
        asked = client(server.url, tmp_path)
        assert asked.ask("\n\na", 0).text == "A"
        with pytest.raises(Unanswered, match=f"^{reason}$"):
            asked.ask("\n\nb", 0)
    assert len(server.requests) == 2 + 3


@pytest.mark.parametrize(("status", "headers"), [(401, {}), (302, {"Location": "http://127.0.0.1:9/v1"})])
def test_a_refusal_is_not_asked_again(tmp_path: Path, status: int, headers: dict[str, str]) -> None:
    with serving(lambda *_: (status, b"", headers)) as server, pytest.raises(Unanswered, match=f"^http_{status}$"):
        client(server.url, tmp_path, key="secret").ask("x", 0)
    assert len(server.requests) == 1


def test_late_answers_and_absent_servers_are_given_up(tmp_path: Path) -> None:
    with serving(sleeping(1)) as server, pytest.raises(Unanswered, match=r"^timeout$"):
        client(server.url, tmp_path, timeout_seconds=0.1, retries=0).ask("x", 0)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        absent = client(f"http://127.0.0.1:{bound.getsockname()[1]}", tmp_path, retries=0)
        for _ in range(GIVE_UP):
            with pytest.raises(Unanswered, match=r"^unreachable$"):
                absent.ask("x", 0)
        with pytest.raises(Unanswered, match=r"^given_up$"):
            absent.ask("x", 0)


def test_a_damaged_kept_answer_is_named(tmp_path: Path) -> None:
    with serving() as server:
        asked = client(server.url, tmp_path)
        asked.ask("\n\na", 0)
        next(tmp_path.rglob("*.json")).write_text("{")
        with pytest.raises(Failure, match="is damaged: delete it"):
            asked.ask("\n\na", 0)


@given(st.text())
def test_a_model_s_text_is_plain_text(text: str) -> None:
    found = cleaned(text)
    assert cleaned(found) == found == " ".join(found.split())
    assert found.encode().decode() == found
    if found:
        assert parse(completion(text)).text == found


@given(st.text(st.sampled_from("ab .!?。\n\r\u2028\t”)"), max_size=80), st.integers(1, 3))
def test_pieces_are_the_text(text: str, sentences: int) -> None:
    assert "".join(pieces(text, sentences)) == text


def test_sentences_are_asked_for_in_their_lines() -> None:
    text = "One. Two! Three?\n\n  - a list\n***\n第一句。第二句。\n"
    asked: list[str] = []

    def ask(prompt: str, seed: int) -> Answer:
        asked.append(prompt)
        if prompt == "en: Three?":
            raise Unanswered("timeout")
        return Answer(prompt.removeprefix("en: ").upper(), 1, 1)

    config = Paraphrase(languages=["en"], prompt="{language}: {text}", sentences=2)
    found = rewrite(text, config, "en", 0, ask)
    assert asked == ["en: One. Two!", "en: Three?", "en: - a list", "en: 第一句。第二句。"]
    assert found.text == "ONE. TWO! Three?\n\n  - A LIST\n***\n第一句。第二句。\n"
    assert (found.requests, found.unanswered, found.prompt_tokens) == (4, {"timeout": 1}, 3)
    assert found.changed == len("One. Two!- a list")


@pytest.mark.parametrize(("answer", "reason"), [("x" * 400, "too_long"), ("x", "too_short")])
def test_answers_of_another_length_do_not_count(answer: str, reason: str) -> None:
    text = "A sentence of about a hundred characters, so that one letter or four hundred of them are no paraphrase."
    found = rewrite(text, Paraphrase(languages=["en"]), "en", 0, lambda *_: Answer(answer))
    assert (found.text, found.unanswered) == (text, {reason: 1})


def test_braces_in_a_text_are_no_fields() -> None:
    assert filled("{language} {text}", text="{language} {x}", language="en") == "en {language} {x}"


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"paraphrase": {"languages": ["en"]}},
        {"synonyms": {"languages": [], "dictionary": "x"}},
        {"synonyms": {"languages": ["en"]}},
        {"paraphrase": {"languages": ["en"], "prompt": "no field"}, "endpoint": {"base_url": "http://x", "model": "m"}},
        {
            "paraphrase": {"languages": ["en"], "prompt": "{text}{x}"},
            "endpoint": {"base_url": "http://x", "model": "m"},
        },
        {"paraphrase": {"languages": ["en"]}, "endpoint": {"base_url": "ftp://x", "model": "m"}},
        {"paraphrase": {"languages": ["en"]}, "endpoint": {"base_url": "http://user:word@x", "model": "m"}},
        {"paraphrase": {"languages": ["en"]}, "endpoint": {"base_url": "http://x", "model": ""}},
    ],
)
def test_bad_settings_are_refused(tables: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(**tables)


def test_how_it_is_asked_changes_no_result() -> None:
    method = {"languages": ["en"]}
    one = Config(paraphrase=method, endpoint={"base_url": "http://a", "model": "m", "key_variable": "K"})
    other = Config(paraphrase=method, endpoint={"base_url": "http://b", "model": "m", "parallel": 9})
    assert one.results() == other.results()
    assert json.dumps(one.results()) != json.dumps(
        Config(paraphrase=method, endpoint={"base_url": "http://a", "model": "n"}).results()
    )
