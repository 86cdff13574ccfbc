"""Access to the parts of a bag's data dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .enums import BagKeys

__all__ = ["drop_padding", "head_mean"]


def drop_padding(value: Any, item: Mapping[Any, Any]) -> Tensor:
    """Return the rows of a per-instance value that are no padding, according to the mask of its item.

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
