"""What a training wrote down for those who use its weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["read_settings"]


def read_settings(path: str | os.PathLike[str], **defaults: Any) -> dict[str, Any]:
    """Read a JSON file of settings; those of ``defaults`` that it lacks, or all where there is no file, are these.

    So a config can be read before anything was trained, as the tools of the model zoo do.

    Args:
        path: of the file.
        **defaults: every setting that may be asked for.

    Raises:
        ValueError: when the file is there and is no JSON object.

    Example:
        >>> read_settings("absent.json", num_classes=2)
        {'num_classes': 2}
    """
    file = Path(path)
    if not file.is_file():
        return dict(defaults)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"`path` must be a JSON file of settings, got {file.name!r}.")
    return {**defaults, **content}
