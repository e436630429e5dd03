"""Compiled loops: numba, with its compiled code kept beside the source where that can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(*signatures: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with its cache where a folder can be written, without it elsewhere.

    With signatures a function is compiled when it is defined, without them at its first call.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(list(signatures) or None, cache=True, **options)(function)
        except RuntimeError as error:  # numba: no folder to keep compiled code in
            if "cache" not in str(error):
                raise
            return numba.njit(list(signatures) or None, **options)(function)

    return decorate
