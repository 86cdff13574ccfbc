"""Transforms from the attention of a bag to instance scores and to the instances with extreme scores."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import BagKeys, check_choice, check_positive, drop_padding, head_mean

__all__ = [
    "InstanceScoresD",
    "InstanceScoresDict",
    "InstanceScoresd",
    "RankInstancesD",
    "RankInstancesDict",
    "RankInstancesd",
]

PREDICTED = "predicted"


class InstanceScoresd(MapTransform):
    """Reduce the attention (N,) or (N, A) of a bag to ``scores`` (N,), float32 on the CPU.

    It also adds ``score_source``: the index of the head or class, or ``"mean"``.

    Args:
        keys: attention of the bag, a single key.
        head: which of the A weights to use: the index of a head (or of a class, for attention per class),
            ``"predicted"`` for the class that ``pred`` (C,) predicts, or ``None`` for the mean of all.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``head`` is not allowed, or the attention has no such head.

    Example:
        >>> item = InstanceScoresd(head=1)({"attention": torch.tensor([[0.5, 0.25], [0.5, 0.75]])})
        >>> item["scores"].tolist(), item["score_source"]
        ([0.25, 0.75], 1)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection = BagKeys.ATTENTION,
        head: int | str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if isinstance(head, str):
            check_choice("head", head, [PREDICTED])
        self.head = head

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the scores of the instances."""
        d = dict(data)
        for key in self.key_iterator(d):
            attention = torch.as_tensor(d[key]).as_subclass(Tensor).detach().cpu().float()
            source: int | str = "mean"
            if self.head is None:
                scores = head_mean(attention)
            else:
                attention = attention[:, None] if attention.ndim == 1 else attention
                source = self._head_index(d, attention.shape[1])
                scores = attention[:, source]
            d[str(BagKeys.SCORES)], d[str(BagKeys.SCORE_SOURCE)] = scores, source
        return d

    def _head_index(self, item: Mapping[Hashable, Any], count: int) -> int:
        index = self.head
        if index == PREDICTED:
            if count != len(item["pred"]):
                raise ValueError(
                    f"`head` 'predicted' must have attention for each of the classes, got {count} weights."
                )
            index = int(item["pred"].argmax())
        if not isinstance(index, int) or not 0 <= index < count:
            raise ValueError(f"`head` must be from 0 to {count - 1}, got {index!r}.")
        return index


class RankInstancesd(MapTransform):
    """Find the instances with the highest and the lowest scores, as indices into the bag without its padding.

    It adds ``top``, highest first, and ``bottom``, lowest first. No instance is in both, and equal scores are ranked in
    the order of the bag.

    Args:
        keys: scores (N,) of the instances, a single key.
        top_k: largest number of instances in ``top`` and in ``bottom``.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``top_k`` is not a positive integer.

    Example:
        >>> item = RankInstancesd(top_k=2)({"scores": torch.tensor([0.1, 0.5, 0.4])})
        >>> item["top"].tolist(), item["bottom"].tolist()
        ([1, 2], [0])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection = BagKeys.SCORES, top_k: int = 4, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive(top_k=top_k)
        self.top_k = top_k

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the indices."""
        d = dict(data)
        for key in self.key_iterator(d):
            order = drop_padding(d[key], d).argsort(descending=True, stable=True)
            top = order[: self.top_k]
            d[str(BagKeys.TOP)] = top
            d[str(BagKeys.BOTTOM)] = order[len(top) :].flip(0)[: self.top_k]
        return d


InstanceScoresD = InstanceScoresDict = InstanceScoresd
RankInstancesD = RankInstancesDict = RankInstancesd
