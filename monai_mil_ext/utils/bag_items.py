"""Access to the parts of a bag's data dictionary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import check_name
from .enums import BagKeys
from .exceptions import InputError

__all__ = ["case_id_of", "check_case_ids", "check_input", "drop_padding", "head_mean"]


def case_id_of(stem: str, prefix: str) -> str:
    """Return the name of a file without suffix as case ID, or a prefix and a hash of it if it can't be one.

    Example:
        >>> case_id_of("s1", "slide"), case_id_of("Müller", "slide")
        ('s1', 'slide_a78429899b')
    """
    try:
        check_name(case_id=stem)
    except ValueError:
        return f"{prefix}_{hashlib.sha256(stem.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
    return stem


def check_case_ids(items: Sequence[Mapping[Any, Any]], places: Sequence[str] | None = None) -> None:
    """Raise ``ValueError`` unless every item has a ``case_id`` that can be a file name and no other item has.

    Args:
        items: data dictionaries.
        places: names of the items in the message, by default their numbers.

    Example:
        >>> check_case_ids([{"case_id": "a"}, {"case_id": "b"}, {"case_id": "a"}])
        Traceback (most recent call last):
        ...
        ValueError: `case_id` must be unique, got 'a' in item 0 and item 2.
    """
    found: dict[str, list[str]] = {}
    for number, item in enumerate(items):
        check_name(case_id=item.get(BagKeys.CASE_ID, ""))
        place = f"item {number}" if places is None else places[number]
        found.setdefault(str(item[BagKeys.CASE_ID]), []).append(place)
    repeated = [f"{case!r} in {' and '.join(named)}" for case, named in found.items() if len(named) > 1]
    if repeated:
        raise ValueError(f"`case_id` must be unique, got {', '.join(repeated)}.")


def check_input(item: Mapping[Any, Any]) -> None:
    """Raise :py:class:`InputError` if an item has an ``input_error``, for which its row of a table can't be used.

    Example:
        >>> check_input({"case_id": "a", "image": "", "input_error": "`image` must be given, got an empty cell"})
        Traceback (most recent call last):
        ...
        monai_mil_ext.utils.exceptions.InputError: `image` must be given, got an empty cell.
    """
    if item.get(BagKeys.INPUT_ERROR):
        raise InputError(f"{item[BagKeys.INPUT_ERROR]}.")


def drop_padding(value: Any, item: Mapping[Any, Any]) -> Tensor:
    """Return the rows of a per-instance value that are not padding, according to the mask of its item.

    Args:
        value: tensor or array (N, ...) with an instance on its first axis.
        item: data dictionary of the bag; without a ``mask`` (N,) every row is kept.

    Returns:
        Tensor of the valid rows, on the device of ``value``.

    Example:
        >>> drop_padding(torch.tensor([0.5, 0.5, 0.0]), {"mask": torch.tensor([True, True, False])}).tolist()
        [0.5, 0.5]
    """
    rows = torch.as_tensor(value).as_subclass(Tensor)
    return rows[torch.as_tensor(item[BagKeys.MASK]).to(rows.device)] if BagKeys.MASK in item else rows


def head_mean(attention: Tensor) -> Tensor:
    """Return the score (N,) of each instance from attention (N,) or (N, A), averaged over its A heads.

    Example:
        >>> head_mean(torch.tensor([[0.0, 1.0], [0.5, 0.5]])).tolist()
        [0.5, 0.5]
    """
    return attention.mean(dim=-1) if attention.ndim == 2 else attention
