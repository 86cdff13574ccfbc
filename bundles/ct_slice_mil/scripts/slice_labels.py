"""Training with labels of slices: for the ceilings, and never for a method that is measured against them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.engines import PrepareBatch
from monai.transforms import MapTransform
from torch import Tensor, nn

from monai_mil_ext.data import read_bag
from monai_mil_ext.networks.nets import BagNet
from monai_mil_ext.utils import BagKeys

__all__ = ["InstanceLogits", "KeepSlicesd", "PrepareSliceLabels", "oracle_slices"]

LABEL = str(BagKeys.INSTANCE_LABEL)


class PrepareSliceLabels(PrepareBatch):
    """Gives the labels of slices (B, N) in place of the bag's, NaN at padding, for ``MultiLabelLoss``."""

    def __call__(
        self, batchdata: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """Bags, labels and the mask, on the device."""
        image, label, mask = (batchdata[key].to(device, non_blocking=non_blocking) for key in ("image", LABEL, "mask"))
        return image, label.float().masked_fill(~mask, torch.nan), (), {"mask": mask}


class InstanceLogits(nn.Module):
    """Makes ``forward`` give the scores (B, N) of a network of one class, for losses on slices.

    Args:
        net: the network; its weights stay its own.
    """

    def __init__(self, net: BagNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scores (B, N) of bags (B, N, F)."""
        scores = self.net.forward_bag(x, mask).scores
        assert scores is not None  # noqa: S101 - for the type checker: of a network that gives scores
        return scores.squeeze(-1)


def oracle_slices(bags: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Tell of each bag which slices an oracle attends to: its positive ones, as ``keep`` (N,).

    A negative bag has the slices of a positive bag of the same part, drawn by lot, with the places scaled to its own
    number of slices (nearest): so that place and number of the slices alone tell nothing of the label.

    Args:
        bags: of one part of a split, with the feature file ``image`` and the ``label``.
        seed: of the draw.

    Raises:
        ValueError: when a positive bag has no positive slice, or no bag is positive.
    """
    labels = [read_bag(bag["image"], keys=[LABEL])[LABEL].numpy() > 0 for bag in bags]
    empty = [bag["case_id"] for bag, own in zip(bags, labels, strict=True) if bag["label"] and not own.any()]
    lesions = [own for bag, own in zip(bags, labels, strict=True) if bag["label"]]
    if empty or not lesions:
        raise ValueError(f"`bags` must have positive slices where they are positive, got none in {empty or 'any bag'}.")
    rng = np.random.default_rng(seed)
    borrowed = rng.integers(0, len(lesions), len(bags))
    kept = [
        own if bag["label"] else _resampled(lesions[k], len(own))
        for bag, own, k in zip(bags, labels, borrowed, strict=True)
    ]
    return [{**bag, "keep": torch.from_numpy(keep)} for bag, keep in zip(bags, kept, strict=True)]


def _resampled(lesion: np.ndarray, size: int) -> np.ndarray:
    """The mask ``lesion`` at another size, nearest; its middle where that leaves nothing."""
    nearest = lesion[np.minimum((np.arange(size) + 0.5) * len(lesion) // size, len(lesion) - 1).astype(int)]
    if not nearest.any():
        nearest[int((np.flatnonzero(lesion).mean() + 0.5) * size / len(lesion))] = True
    return nearest


class KeepSlicesd(MapTransform):
    """Leaves of every key (N, ...) the slices that ``keep`` (N,) names, and takes ``keep`` away.

    Args:
        keys: what has an instance on its first axis.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut every key."""
        d = dict(data)
        keep = d.pop("keep")
        for key in self.key_iterator(d):
            d[key] = d[key][keep]
        return d
