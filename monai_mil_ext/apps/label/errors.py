"""HTTP errors of the app, which state a reason but no path."""

from __future__ import annotations

from pathlib import Path

from monai_mil_ext.utils import SourceMismatchError, hide_paths
from monai_mil_ext.utils.exceptions import hide_absolute_paths, root_cause

from ._monailabel import HTTPException

__all__ = ["http_error", "http_error_from"]


def http_error(text: str, status: int = 400) -> Exception:
    """Return the exception to which the server responds with ``status`` and the reason ``text``."""
    error: Exception = HTTPException(status_code=status, detail=text)
    return error


def http_error_from(error: BaseException, *paths: str | Path) -> Exception:
    """Return the root cause of ``error`` as an HTTP error, without ``paths``, their folders and their names."""
    cause = root_cause(error)
    if isinstance(cause, SourceMismatchError):  # it has no path, but may have a word that is also the name of a file
        return http_error(f"refused: {cause}")
    text = f"{type(cause).__name__}: {cause}".strip()
    return http_error(hide_absolute_paths(cause, hide_paths(text, paths, "...")))
