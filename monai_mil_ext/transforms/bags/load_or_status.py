"""Transforms that record a failure as the status of a bag, so that one bad file does not end a long inference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_mil_ext.utils import BagKeys, BagStatus, EmptyBagError, InputError, SourceMismatchError
from monai_mil_ext.utils.bag_items import check_input
from monai_mil_ext.utils.exceptions import case_error
from monai_mil_ext.utils.privacy import describe_case_error

__all__ = ["LoadOrStatus", "PostprocessOrStatus"]

logger = logging.getLogger(__name__)


class LoadOrStatus:
    """Loader that returns a placeholder bag with a ``status`` if a bag is empty or can't be read.

    Every item gets a ``status``: ``"done"``, ``"empty"``, ``"unreadable: <reason>"`` or
    ``"refused: <reason>"``, for a bag from another source than that of the training. A placeholder is one instance
    of zeros, so that inference continues; a saver such as ``BagPredictionsSaver`` removes it before metrics and other
    handlers see it. It has only the case ID and the patient of the item, and what an
    :py:class:`monai_mil_ext.utils.InputError` states: ``option``, ``container``, ``shape`` and ``spacing``. So bags of
    different status can't be in one batch: infer with a batch size of 1.

    A bag whose instances all have the same features is done, and ``notes`` say so, once also in the log.

    An item with an ``input_error``, such as one of :py:func:`monai_mil_ext.data.list_slides`, is unreadable for this
    reason, and so is a bag whose features have another number of columns than the placeholder. Only an error that a
    file may cause becomes a status, see :py:func:`monai_mil_ext.utils.exceptions.case_error`; a full disk or a mistake
    in the program is raised. No status has a path or the name of a file or folder of the item, see
    :py:func:`monai_mil_ext.utils.hide_paths`.

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
            check_input(data)
            bag = self.transform(dict(data))
            self._check(bag)
            return {**bag, **self._notes(bag), str(BagKeys.STATUS): str(BagStatus.DONE)}
        except Exception as error:
            cause = case_error(error)
            if cause is None:
                raise
        ids = {str(key): data[key] for key in (BagKeys.CASE_ID, BagKeys.PATIENT) if key in data}
        blank = {key: torch.zeros(1, *shape) for key, shape in self.instance_shapes.items()}
        kind = "refused" if isinstance(cause, SourceMismatchError) else "unreadable"
        status = BagStatus.EMPTY if isinstance(cause, EmptyBagError) else f"{kind}: {describe_case_error(cause, data)}"
        facts = _facts(cause)
        if status == BagStatus.EMPTY:  # which says no more
            facts[str(BagKeys.NOTES)] = describe_case_error(cause, data)
        return {**ids, **blank, **facts, str(BagKeys.STATUS): str(status)}

    def _check(self, bag: Mapping[Any, Any]) -> None:
        """Raise ``ValueError`` for a bag that would not fit a batch or the network."""
        for key, shape in self.instance_shapes.items():
            if key not in bag:
                raise ValueError(f"`{key}` must be in the bag, got {sorted(map(str, bag))}.")
            columns = tuple(bag[key].shape[1:])
            if len(shape) == 1 and columns != shape:  # features; pictures of instances may have any size
                name = "features" if key == "image" else f"`{key}`"
                got = columns[0] if len(columns) == 1 else f"shape {tuple(bag[key].shape)}"
                raise ValueError(f"{name} must have {shape[0]} columns, got {got}.")

    def _notes(self, bag: Mapping[Any, Any]) -> dict[str, str]:
        """Return the notes of a bag with one on features that are the same in all instances."""
        shape = self.instance_shapes.get("image", ())
        found = _sameness(torch.as_tensor(bag["image"])) if len(shape) == 1 else ""
        if not found:
            return {}
        logger.warning("%s: %s", bag.get(BagKeys.CASE_ID, "a bag"), found)
        return {str(BagKeys.NOTES): "; ".join(filter(None, [bag.get(BagKeys.NOTES), found]))}


def _sameness(features: Tensor) -> str:
    """Return what is the same in all features (N, F), or an empty string."""
    if features.numel() < 2 or not torch.equal(features[0], features[-1]):  # most bags need no more
        return ""
    lowest, highest = torch.aminmax(features, dim=0)
    if not torch.equal(lowest, highest):
        return ""
    if bool((lowest == lowest[0]).all()):
        return f"all features are {float(lowest[0]):g}, as if their encoding failed"
    return f"all {len(features)} instances have the same features" if len(features) > 1 else ""


def _facts(error: Exception) -> dict[str, Any]:
    """Return what an error states of its input, in the form in which a bag can be collated."""
    if not isinstance(error, InputError):
        return {}
    facts = {name: list(v) if isinstance(v, tuple) else v for name, v in error.facts.items()}
    return {str(BagKeys.OPTION): error.option, **facts}


class PostprocessOrStatus:
    """Postprocessing that skips a bag that is not done, and records an error as the ``status`` of its bag.

    It is for inference on bags that :py:class:`LoadOrStatus` loads. An error that :py:class:`LoadOrStatus` would not
    raise becomes a status, ``"not written: <reason>"``, without a path. A bag without a ``status`` counts as done.

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
            cause = case_error(error)
            if cause is None:
                raise
        return {**data, str(BagKeys.STATUS): f"not written: {describe_case_error(cause, data)}"}
