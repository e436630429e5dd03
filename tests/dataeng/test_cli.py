"""Exit statuses and messages of entry points, through real processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dataeng.cli import one_line

HEAD = "import sys, time; from dataeng import cli\n"


def call(body: str) -> subprocess.CompletedProcess[str]:
    script = f"{HEAD}def main(arguments):\n    {body}\ncli.run(main)"
    return subprocess.run([sys.executable, "-c", script, "one", "two"], capture_output=True, text=True)


def test_success_and_arguments() -> None:
    done = call("print(arguments)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "['one', 'two']\n", "")


def test_a_users_mistake_is_one_line_and_2() -> None:
    done = call("raise cli.UserError('a.toml:  wrong\\n  way')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: a.toml: wrong way\n")


def test_a_conflict_is_one_line_and_1() -> None:
    done = call("raise cli.Conflict('another run published')")
    assert (done.returncode, done.stderr) == (1, "error: Conflict: another run published\n")


def test_a_failure_shows_its_cause_and_is_1() -> None:
    done = call("{}['key']")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: KeyError: 'key'\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_said_and_130(number: signal.Signals) -> None:
    script = f"{HEAD}def main(arguments):\n    print('up', flush=True)\n    time.sleep(60)\ncli.run(main)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it
    )
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said == "error: interrupted: nothing half-written was published; run it again to go on\n"


def test_an_error_without_words_gives_its_type() -> None:
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ValueError(" a\n b\t")) == "a b"


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    script = f"{HEAD}def main(arguments):\n    [print('line', n) for n in range(100_000)]\ncli.run(main)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
