"""Transforms that record a failure as the status of a bag, so that one bad file does not end a long inference."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.utils import BagKeys, BagStatus, EmptyBagError, SourceMismatchError

__all__ = ["LoadOrStatus", "PostprocessOrStatus"]


class LoadOrStatus:
    """Loader that returns a placeholder bag with a ``status`` if a bag is empty or can't be read.

    Every item gets a ``status``: ``"done"``, ``"empty"``, ``"unreadable: <reason>"`` or
    ``"refused: <reason>"``, for a bag from another source than that of the training. A placeholder is one instance
    of zeros, so that inference continues; a saver such as ``BagPredictionsSaver`` removes it before metrics and other
    handlers see it. It has only the case ID and the patient of the item, so bags of different status can't be in one
    batch: infer with a batch size of 1.

    Only an ``OSError`` or a ``ValueError``, which a file may cause, becomes a status; any other error is raised.

    Args:
        transform: transform from an item to a bag.
        instance_shapes: shape of one instance, for each key that is collated as a bag.

    Raises:
        ValueError: when ``instance_shapes`` is empty.

    Example:
        >>> from monai_mil_ext.transforms import LoadBagd
        >>> load = LoadOrStatus(LoadBagd("image"), {"image": [4]})
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
        """Return the bag of ``data`` with its status."""
        try:
            return {**self.transform(dict(data)), str(BagKeys.STATUS): str(BagStatus.DONE)}
        except Exception as error:
            cause = _file_error(error)
            if cause is None:
                raise
        ids = {str(key): data[key] for key in (BagKeys.CASE_ID, BagKeys.PATIENT) if key in data}
        blank = {key: torch.zeros(1, *shape) for key, shape in self.instance_shapes.items()}
        kind = "refused" if isinstance(cause, SourceMismatchError) else "unreadable"
        status = BagStatus.EMPTY if isinstance(cause, EmptyBagError) else f"{kind}: {_reason(cause)}"
        return {**ids, **blank, str(BagKeys.STATUS): str(status)}


class PostprocessOrStatus:
    """Postprocessing that skips a bag that is not done, and records an error as the ``status`` of its bag.

    It is for inference on bags that :py:class:`LoadOrStatus` loads. Only an ``OSError`` or a ``ValueError``
    becomes a status, ``"not written: <reason>"``; any other error is raised. A bag without a ``status`` counts as done.

    Args:
        transform: postprocessing of one item.

    Example:
        >>> def check(item):
        ...     raise ValueError("`head` must be from 0 to 0, got 3.")
        >>> PostprocessOrStatus(check)({"case_id": "a", "status": "done"})["status"]
        'not written: `head` must be from 0 to 0, got 3.'
        >>> PostprocessOrStatus(check)({"case_id": "a", "status": "empty"})["status"]
        'empty'
    """

    def __init__(self, transform: Callable[[Any], Mapping[Any, Any]]) -> None:
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Any, Any]:
        """Return the processed item, or the item with another status."""
        if data.get(BagKeys.STATUS, BagStatus.DONE) != BagStatus.DONE:
            return dict(data)
        try:
            return dict(self.transform(dict(data)))
        except Exception as error:
            cause = _file_error(error)
            if cause is None:
                raise
        return {**data, str(BagKeys.STATUS): f"not written: {_reason(cause)}"}


def _file_error(error: BaseException | None) -> OSError | ValueError | None:
    """Return the first error in the chain of causes that a file may cause: MONAI wraps errors of transforms."""
    while error is not None and not isinstance(error, (OSError, ValueError)):
        error = error.__cause__
    return error


def _reason(error: OSError | ValueError) -> str:
    # the text of an operating system error contains the whole path of the file
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())
