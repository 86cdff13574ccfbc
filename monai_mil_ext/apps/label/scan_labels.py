"""Scan-level labels in MONAI Label, stored in the info of the image or as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["class_index", "is_labeled", "label_of"]

BAG_LABEL = "bag_label"
TAG = "final"
PART = "part"  # of the last training, by model: `training` or `held out`


def label_of(datastore: Any, image: str, class_names: Sequence[str]) -> int | None:
    """Return the class index of the label of ``image``, or None if it has no such label.

    The info of the image (``{"bag_label": 1}``) takes precedence over the JSON file of its final label, which has the
    same form.

    Args:
        datastore: datastore of MONAI Label.
        image: ID of the image.
        class_names: names of the classes; a label is the index or the name of a class.

    Raises:
        ValueError: when the label is not a class.
    """
    label = _stored_label(datastore, image)
    if label is None:
        return None
    index = class_index(label, class_names)
    if index is None:
        rule = f"a class number below {len(class_names)} or a name of {[name.lower() for name in class_names]}"
        raise ValueError(f"`{BAG_LABEL}` must be {rule}, got {label!r} for {image!r}.")
    return index


def class_index(label: Any, class_names: Sequence[str]) -> int | None:
    """Return the index of a class that is given by its index or its name, or None if there is no such class.

    Example:
        >>> class_index("Tumor", ["no tumor", "tumor"]), class_index(2, ["no tumor", "tumor"])
        (1, None)
    """
    names = [name.lower() for name in class_names]
    if isinstance(label, str):
        return names.index(label.lower()) if label.lower() in names else None
    is_index = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names)
    return label if is_index else None


def is_labeled(datastore: Any, image: str) -> bool:
    """Return whether ``image`` has a scan-level label, or a final label of any kind."""
    return _stored_label(datastore, image) is not None or TAG in datastore.get_labels_by_image_id(image)


def _stored_label(datastore: Any, image: str) -> Any:
    label = datastore.get_image_info(image).get(BAG_LABEL)
    if label is not None or TAG not in datastore.get_labels_by_image_id(image):
        return label
    file = Path(datastore.get_label_uri(image, TAG))
    if file.suffix != ".json":
        return None  # such as a mask
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        return None
    return content.get(BAG_LABEL) if isinstance(content, dict) else None
