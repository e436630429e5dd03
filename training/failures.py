"""What a worker's error means to its run: what the user is told, and whether starting again can mend it."""

from __future__ import annotations

from typing import NamedTuple

from dataeng.cli import Conflict, Failure, Unreachable, UserError
from training.trainer import TrainingFailed

TOLD = (UserError, Failure, Conflict)  # errors that are one line to the user


class Said(NamedTuple):
    """An error of a worker as it travels; ``final``: starting again cannot mend it."""

    kind: str
    text: str
    final: bool

    def error(self) -> Exception:
        """The error again, of the kind that says the exit status."""
        return next(kind for kind in TOLD if kind.__name__ == self.kind)(self.text)


def said(error: Exception) -> Said:
    """What is told of one of the ``TOLD``."""
    kind = next(kind for kind in TOLD if isinstance(error, kind))
    final = isinstance(error, UserError | TrainingFailed | Conflict) and not isinstance(error, Unreachable)
    return Said(kind.__name__, str(error), final)
