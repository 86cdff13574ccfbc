"""Training with slice labels, for the supervised references only."""

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

__all__ = ["InstanceLogits", "KeepSlicesd", "PrepareSliceLabels", "oracle_slices", "resample_mask"]

LABEL = str(BagKeys.INSTANCE_LABEL)


class PrepareSliceLabels(PrepareBatch):
    """Batch preparation with slice labels (B, N) instead of bag labels, NaN at padding, for ``MultiLabelLoss``."""

    def __call__(
        self, batchdata: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """Return bags, labels and mask on the device."""
        image, label, mask = (batchdata[key].to(device, non_blocking=non_blocking) for key in ("image", LABEL, "mask"))
        return image, label.float().masked_fill(~mask, torch.nan), (), {"mask": mask}


class InstanceLogits(nn.Module):
    """Wrapper whose ``forward`` returns the scores (B, N) of a network with one class, for losses on slices.

    Args:
        net: the network.
    """

    def __init__(self, net: BagNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scores (B, N) of bags (B, N, F)."""
        scores = self.net.forward_bag(x, mask).scores
        assert scores is not None  # noqa: S101 - for the type checker: the network has scores
        return scores.squeeze(-1)


def oracle_slices(bags: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Add the mask ``keep`` (N,) of the slices that an oracle attends to, the positive ones, to each bag.

    A negative bag gets the positions of the positive slices of a random positive bag of the same part, resampled to its
    number of slices (nearest), so that position and number of the slices alone do not reveal the label.

    Args:
        bags: bags of one part of a split, with the feature file ``image`` and the ``label``.
        seed: seed of the random draw.

    Raises:
        ValueError: if a positive bag has no positive slice, or no bag is positive.
    """
    labels = [read_bag(bag["image"], keys=[LABEL])[LABEL].numpy() > 0 for bag in bags]
    pairs = list(zip(bags, labels, strict=True))
    empty = [bag["case_id"] for bag, label in pairs if bag["label"] and not label.any()]
    lesions = [label for bag, label in pairs if bag["label"]]
    if empty or not lesions:
        raise ValueError(f"`bags` must have positive slices where they are positive, got none in {empty or 'any bag'}.")
    borrowed = np.random.default_rng(seed).integers(0, len(lesions), len(bags))
    kept = [
        label if bag["label"] else resample_mask(lesions[k], len(label))
        for (bag, label), k in zip(pairs, borrowed, strict=True)
    ]
    return [{**bag, "keep": torch.from_numpy(keep)} for bag, keep in zip(bags, kept, strict=True)]


def resample_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resample a mask to another size by nearest neighbor; if nothing is left, keep its middle."""
    nearest: np.ndarray = mask[np.minimum((np.arange(size) + 0.5) * len(mask) // size, len(mask) - 1).astype(int)]
    if not nearest.any():
        nearest[int((np.flatnonzero(mask).mean() + 0.5) * size / len(mask))] = True
    return nearest


class KeepSlicesd(MapTransform):
    """Keep the slices of each key (N, ...) that ``keep`` (N,) selects, and remove ``keep``.

    Args:
        keys: items with instances on the first axis.
        allow_missing_keys: whether to ignore missing keys.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Select the slices of each key."""
        d = dict(data)
        keep = d.pop("keep")
        for key in self.key_iterator(d):
            d[key] = d[key][keep]
        return d
