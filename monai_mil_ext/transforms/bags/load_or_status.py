"""Transforms that record a failure as the status of a bag, so that one bad file does not end a long inference."""

from __future__ import annotations

import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.utils import BagKeys, BagStatus, EmptyBagError, hide_paths

__all__ = ["LoadOrStatus", "PostprocessOrStatus"]

FILE_ERRORS = (OSError, ValueError, EOFError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class LoadOrStatus:
    """Loader that returns a placeholder bag with a ``status`` if a bag is empty or can't be read.

    Every item gets a ``status``: ``"done"``, ``"empty"`` or ``"unreadable: <reason>"``. A placeholder is one instance
    of zeros, so that inference continues; a saver such as ``BagPredictionsSaver`` removes it before metrics and other
    handlers see it. It has only the case ID and the patient of the item, so bags of different status can't be in one
    batch: infer with a batch size of 1.

    An ``OSError`` or a ``ValueError`` becomes a status, and so do the errors that Python's own readers raise on damaged
    files (``EOFError``, ``struct.error``, ``zlib.error``, ``lzma.LZMAError``, ``zipfile.BadZipFile``). Readers of this
    package turn whatever a library raises on a file into one of them, where they call it. So any other error is a
    mistake in a program, and is raised.

    No status has a path or the name of a file or folder of the item, see :py:func:`monai_mil_ext.utils.hide_paths`.

    Args:
        transform: transform from an item to a bag.
        instance_shapes: shape of one instance, for each key that is collated as a bag.

    Raises:
        ValueError: when ``instance_shapes`` is empty.

    Example:
        >>> from monai_mil_ext.transforms import LoadBagd
        >>> load = LoadOrStatus(LoadBagd("image"), {"image": [4]})
        >>> load({"image": "absent.h5", "case_id": "a"})["status"]
        'unreadable: `path` must be a bag file that exists, got the file.'
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
        status = BagStatus.EMPTY if isinstance(cause, EmptyBagError) else f"unreadable: {_reason(cause, data)}"
        return {**ids, **blank, str(BagKeys.STATUS): str(status)}


class PostprocessOrStatus:
    """Postprocessing that skips a bag that is not done, and records an error as the ``status`` of its bag.

    It is for inference on bags that :py:class:`LoadOrStatus` loads. The same errors become a status,
    ``"not written: <reason>"``, without a path; any other error is raised. A bag without a ``status`` counts as done.

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
        return {**data, str(BagKeys.STATUS): f"not written: {_reason(cause, data)}"}


def _file_error(error: BaseException | None) -> BaseException | None:
    """Return the first error in the chain of causes that a file may cause: MONAI wraps errors of transforms."""
    while error is not None and not isinstance(error, FILE_ERRORS):
        error = error.__cause__
    return error


def _reason(error: BaseException, data: Mapping[Hashable, Any]) -> str:
    # the text of an operating system error contains the whole path of the file
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return hide_paths(" ".join(reason.split()), _paths(data))


def _paths(data: Mapping[Hashable, Any]) -> list[str | os.PathLike[str]]:
    """Return all texts of an item that may be paths."""
    ids = (BagKeys.CASE_ID, BagKeys.PATIENT, BagKeys.STATUS, BagKeys.PLANE)
    values = [value for key, value in data.items() if key not in ids]
    values = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    return [value for value in values if isinstance(value, (str, os.PathLike)) and value]
