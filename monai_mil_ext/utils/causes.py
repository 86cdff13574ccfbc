"""Saying last what went wrong first: MONAI wraps an error in others, and the reason drowns in the traceback."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["end_with_root_cause", "root_cause"]


def root_cause(error: BaseException) -> BaseException:
    """Give the error that all others were raised from.

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


def end_with_root_cause() -> None:
    """Have a process that ends by an error print its root cause below the traceback.

    For programs of their own: a bundle calls it in ``initialize`` when it was started from the command line.
    """
    sys.excepthook = _print_with_root_cause


def _print_with_root_cause(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    cause = root_cause(error)
    if cause is not error:
        sys.stderr.write(f"\nThe cause: {type(cause).__name__}: {cause}\n")
