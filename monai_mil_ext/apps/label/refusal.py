"""How the app says no: as an HTTP error with a reason and without a path."""

from __future__ import annotations

from pathlib import Path

from monai_mil_ext.utils import root_cause

from .server_parts import HTTPException

__all__ = ["refusal", "refusal_of"]


def refusal(text: str, status: int = 400) -> Exception:
    """Give the error that a server answers with ``status`` and the reason ``text``."""
    error: Exception = HTTPException(status_code=status, detail=text)
    return error


def refusal_of(error: BaseException, *paths: str | Path) -> Exception:
    """Give the root cause of ``error`` as such an error; ``paths``, their folders and names are not in its text."""
    cause = root_cause(error)
    text = f"{type(cause).__name__}: {cause}".strip()
    for path in paths:
        for hidden in (str(path), str(Path(path).parent), Path(path).name):
            text = text.replace(hidden, "...")
    return refusal(text)
