"""Whatever a page does to its worker, the page alone suffers. Real processes, real limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.extract.limits import Failed, Limited, Raised


@pytest.fixture
def limited(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = Limited("hostile:act", seconds=1, memory_bytes=1 << 30, patience=2)
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("loop", "timeout"),
        ("loop in C", "timeout"),
        ("wait", "timeout"),
        ("memory", "memory"),
        ("abort", "crash"),
        ("exit", "crash"),
    ],
)
def test_each_limit_has_its_name_and_the_next_call_is_served(limited, what, reason):
    assert limited.call("before") == "before"
    with pytest.raises(Failed) as failed:
        limited.call(what)
    assert failed.value.reason == reason
    assert limited.call("after") == "after"


@pytest.mark.parametrize("what", ["abort", "wait", "memory"])
def test_a_page_that_fails_once_gets_a_second_try(limited, tmp_path, what):
    assert limited.call(what, str(tmp_path / "marker")) == "second try"


def test_what_the_function_raises_is_named_by_type_alone(limited):
    with pytest.raises(Raised, match=r"^ValueError$"):
        limited.call("raise")
    assert limited.call("after") == "after"


def test_noise_on_standard_output_does_not_mix_with_answers(limited):
    assert limited.call("print") == "print"
    assert limited.call("after") == "after"


def test_large_requests_and_answers_pass(limited):
    assert limited.call("x" * (20 << 20)) == "x" * (20 << 20)


def test_one_process_serves_many_calls_until_it_is_renewed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = Limited("hostile:double", seconds=5, calls_a_process=3)
    served = []
    for number in range(7):
        assert made.call(number) == 2 * number
        served.append(made._process.pid)
    made.stop()
    assert len(set(served[:3])) == 1
    assert len(set(served)) == 3


def test_a_worker_that_cannot_start_says_so():
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Limited("no_such_module:work").call("x")


def test_a_call_that_is_slow_for_want_of_a_processor_is_served(limited):
    assert limited.call("nap") == "nap"  # 1.5 s on the clock at 1 s of processor time


def test_the_bound_of_processor_time_is_each_call_s_own(limited):
    for _ in range(4):
        assert limited.call("work half a second") == "work half a second"
