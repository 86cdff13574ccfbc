"""Root cause of a nested exception, printed last, where users look for it.

MONAI wraps an error in several others, so that the reason is lost in the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType

__all__ = ["print_root_cause", "root_cause"]

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def root_cause(error: BaseException) -> BaseException:
    """Return the error from which all others were raised.

    Example:
        >>> try:
        ...     raise RuntimeError("Failed to evaluate") from ValueError("`plane` must be axial")
        ... except RuntimeError as error:
        ...     root_cause(error)
        ValueError('`plane` must be axial')
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def print_root_cause() -> None:
    """Make the process print the root cause of an uncaught error below the traceback.

    It sets ``sys.excepthook``, which first calls the hook before it, so use it in programs only: a bundle calls it in
    ``initialize`` if it was started from the command line.
    """
    if getattr(sys.excepthook, "func", None) is not _print_with_root_cause:
        sys.excepthook = partial(_print_with_root_cause, sys.excepthook)


def _print_with_root_cause(
    hook: Hook, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    hook(kind, error, trace)
    cause = root_cause(error)
    if cause is not error:
        sys.stderr.write(f"\nThe cause: {type(cause).__name__}: {cause}\n")
