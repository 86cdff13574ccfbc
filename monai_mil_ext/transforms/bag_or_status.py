"""Loading a bag, or saying why there is none, so that one bad file does not end an inference on many."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.utils import BagKeys, EmptyBagError

__all__ = ["DONE", "STATUS", "BagOrStatus"]

STATUS, DONE = "status", "done"


class BagOrStatus:
    """Runs ``transform`` on an item; where its bag is empty or can't be read, gives a blank bag that says so.

    Every item gets a ``status``: ``"done"``, ``"empty"`` or ``"unreadable: <reason>"``. A blank bag is one instance of
    zeros that only keeps the batch going: ``BagPredictionsSaver`` takes it out before anything else looks at what the
    network made of it. It has the case id and the patient of the item and nothing else, so bags of different status
    don't mix in one batch: infer with a batch size of 1.

    Only what a file can be blamed for, an ``OSError`` or a ``ValueError``, is a status; any other error is raised.

    Args:
        transform: from an item to a bag.
        instance_shapes: the shape of one instance, by key, of each item that is collated as a bag.

    Raises:
        ValueError: when there is no key.

    Example:
        >>> from monai_mil_ext.transforms import LoadBagd
        >>> load = BagOrStatus(LoadBagd("image"), {"image": [4]})
        >>> load({"image": "absent.h5", "case_id": "a"})["status"]
        "unreadable: `path` must be a bag file that exists, got 'absent.h5'."
    """

    def __init__(
        self, transform: Callable[[Any], Mapping[Any, Any]], instance_shapes: Mapping[str, Sequence[int]]
    ) -> None:
        if not instance_shapes:
            raise ValueError(f"`instance_shapes` must have the shape of an instance for a key, got {instance_shapes}.")
        self.transform = transform
        self.instance_shapes = {key: tuple(shape) for key, shape in instance_shapes.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Any, Any]:
        """The bag of ``data`` and its status."""
        try:
            return {**self.transform(dict(data)), STATUS: DONE}
        except Exception as error:
            cause = _blamed(error)
            if cause is None:
                raise
        ids = {str(key): data[key] for key in (BagKeys.CASE_ID, BagKeys.PATIENT) if key in data}
        blank = {key: torch.zeros(1, *shape) for key, shape in self.instance_shapes.items()}
        return {**ids, **blank, STATUS: _status(cause)}


def _blamed(error: BaseException | None) -> OSError | ValueError | None:
    """The first that a file can be blamed for: MONAI wraps a transform's, and a reader a library's error."""
    while error is not None and not isinstance(error, (OSError, ValueError)):
        error = error.__cause__
    return error


def _status(error: OSError | ValueError) -> str:
    if isinstance(error, EmptyBagError):
        return "empty"
    # the text of an error of the system has the whole path of the file
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"unreadable: {' '.join(reason.split())}"
