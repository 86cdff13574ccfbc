"""One label a scan, as MONAI Label keeps it: as info of the image, or as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["is_labeled", "label_of"]

BAG_LABEL = "bag_label"
TAG = "final"


def label_of(datastore: Any, image: str, class_names: Sequence[str]) -> int | None:
    """Give the number of the class that ``image`` was given; None where it has no such label.

    Info of the image (``{"bag_label": 1}``) goes before the JSON file of its final label, which holds the same.

    Args:
        datastore: MONAI Label's.
        image: id.
        class_names: a label is the number or the name of one of these.

    Raises:
        ValueError: when a label is neither.
    """
    told = _told(datastore, image)
    if told is None:
        return None
    names = [name.lower() for name in class_names]
    if isinstance(told, str) and told.lower() in names:
        return names.index(told.lower())
    if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < len(names):
        return told
    raise ValueError(f"`{BAG_LABEL}` must be a class number below {len(names)} or a name of {names}, got {told!r}.")


def is_labeled(datastore: Any, image: str) -> bool:
    """Whether ``image`` has a label of its own, or a final one of any kind."""
    return _told(datastore, image) is not None or TAG in datastore.get_labels_by_image_id(image)


def _told(datastore: Any, image: str) -> Any:
    told = datastore.get_image_info(image).get(BAG_LABEL)
    if told is not None or TAG not in datastore.get_labels_by_image_id(image):
        return told
    file = Path(datastore.get_label_uri(image, TAG))
    if file.suffix != ".json":
        return None  # a mask of something, say
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        return None
    return content.get(BAG_LABEL) if isinstance(content, dict) else None
