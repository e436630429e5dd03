"""What every entry point shares: exit statuses, one-line errors and readable logs."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

log = logging.getLogger("millrace")


class UserError(Exception):
    """A user's mistake: the message names the thing, the place and the way out, on one line."""


class Unreachable(UserError):
    """A service that was set up does not answer or let us in: a mistake, or over in a while."""


class Conflict(Exception):
    """Another run with other settings published the same stage meanwhile."""


class Failure(Exception):
    """The data do not allow to go on: one line says why, exit status 1, no traceback."""


class Stopped(KeyboardInterrupt):
    """Asked to end, the work ended in order: one line says where, exit status 130."""


def one_line(error: BaseException) -> str:
    """The error's message with all white space folded, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def set_up_logging() -> None:
    """Send one short line an event to standard error; MILLRACE_LOG sets the level."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(os.environ.get("MILLRACE_LOG", "INFO").upper())


def _terminate(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Call ``main`` with the command's arguments and leave with the house's exit status.

    0: done, or found done. 1: failed while running, its cause printed. 2: a user's mistake, in one
    line. 130: interrupted (Ctrl-C or SIGTERM); what was published stays, and a rerun goes on.
    """
    set_up_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except UserError as error:
        status, message = 2, one_line(error)
    except KeyboardInterrupt as error:
        status, message = 130, "interrupted: nothing half-written was published; run it again to go on"
        message = one_line(error) if isinstance(error, Stopped) else message
    except Exception as error:  # noqa: BLE001 — the last resort: shown with its cause, never swallowed
        if not isinstance(error, Conflict | Failure):
            traceback.print_exc()
        status, message = 1, f"{type(error).__name__}: {one_line(error)}"
    else:
        return
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)
