"""Settings that training saves for evaluation and inference."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["read_settings"]


def read_settings(path: str | os.PathLike[str], **defaults: Any) -> dict[str, Any]:
    """Read settings from a JSON file, with defaults for those that it lacks.

    A missing file gives the defaults, so that a config can be parsed before training, as the tools of the model zoo
    do.

    Args:
        path: JSON file.
        **defaults: every setting that a config reads, with its default.

    Raises:
        ValueError: when the file exists and is not a JSON object.

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
