"""Collation of bags of different sizes into a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.utils import ensure_tuple
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from monai_mil_ext.utils import BagKeys, EmptyBagError

__all__ = ["BagCollate"]


class BagCollate:
    """Collate function that pads bags to the longest one and adds ``mask`` (B, N).

    ``mask`` is True for instances and False for padding. Padding is zero and at the end; dtypes are kept. Other keys
    are collated by PyTorch's ``default_collate``.

    Args:
        keys: keys of items whose first axis is that of the instances.
        allow_missing_keys: whether to skip keys that the bags of a batch lack; the first key must exist.

    Raises:
        ValueError: when a bag is empty, its items differ in length, bags differ in keys or in shape or dtype of their
            instances, an item is ``None``, or an item is called ``mask`` already.

    Example:
        >>> batch = BagCollate("image")([{"image": torch.ones(n, 2)} for n in (1, 3)])
        >>> batch["mask"].tolist()
        [[True, False, False], [True, True, True]]
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        self.keys = tuple(str(key) for key in ensure_tuple(keys))
        self.allow_missing_keys = allow_missing_keys

    def __call__(self, bags: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate bags whose ``keys`` are (N_i, ...) to (B, max N_i, ...)."""
        items = [{str(k): _to_tensor(v, k in self.keys) for k, v in bag.items()} for bag in bags]
        for i, bag in enumerate(items):
            _check_items(bag, items[0], _name(bag, i))
        keys = self._keys_of(items[0])
        sizes = torch.tensor([_size(bag, keys, _name(bag, i)) for i, bag in enumerate(items)])
        batch: dict[str, Any] = default_collate([{k: v for k, v in bag.items() if k not in self.keys} for bag in items])
        for key in keys:
            batch[key] = self._pad(key, [bag[key] for bag in items])
        batch[str(BagKeys.MASK)] = torch.arange(int(sizes.max())) < sizes.unsqueeze(-1)
        return batch

    def _keys_of(self, bag: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the keys to pad, which all bags of a batch must have."""
        if not self.allow_missing_keys:
            return self.keys
        return (self.keys[0], *(key for key in self.keys[1:] if key in bag))

    def _pad(self, key: str, values: list[Tensor]) -> Tensor:
        kinds = {(tuple(v.shape[1:]), v.dtype) for v in values}
        if len(kinds) > 1:
            got = " and ".join(sorted(f"(N, {', '.join(map(str, shape))}) {dtype}" for shape, dtype in kinds))
            raise ValueError(f"`{key}` must have instances of one shape and dtype, got {got}.")
        # a single bag is not copied: no network changes its input
        return values[0].unsqueeze(0) if len(values) == 1 else pad_sequence(values, batch_first=True)


def _to_tensor(value: Any, per_instance: bool) -> Any:
    if isinstance(value, MetaTensor):
        return value.as_tensor()
    return torch.as_tensor(value) if per_instance and value is not None else value


def _size(bag: Mapping[str, Any], keys: Sequence[str], name: str) -> int:
    missing = [key for key in keys if key not in bag]
    if missing:
        raise ValueError(f"a bag must have {list(keys)}, got none of {missing} in {name}.")
    sizes = {key: len(bag[key]) if bag[key].ndim else 0 for key in keys}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`keys` must have the same number of instances, got {sizes} in {name}.")
    if not sizes[keys[0]]:
        raise EmptyBagError(f"a bag must have an instance, got none in {name}.")
    return sizes[keys[0]]


def _name(bag: Mapping[str, Any], index: int) -> str:
    return f"bag {bag[BagKeys.CASE_ID]!r}" if BagKeys.CASE_ID in bag else f"bag {index} of the batch"


def _check_items(bag: Mapping[str, Any], first: Mapping[str, Any], name: str) -> None:
    if BagKeys.MASK in bag:
        raise ValueError(f"`mask` must not be a key of a bag, since BagCollate adds it, got one in {name}.")
    empty = [key for key, value in bag.items() if value is None]
    if empty:
        raise ValueError(f"items of a bag must not be None, got None for {empty} in {name}.")
    if bag.keys() != first.keys():
        raise ValueError(f"bags of a batch must have the same keys, got {sorted(bag)} and {sorted(first)}.")
