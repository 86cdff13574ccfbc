"""Transforms of network outputs and reference masks to the form that metrics and savers expect."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import check_choice, logits_to_probabilities
from monai_mil_ext.utils.probabilities import TASKS

__all__ = [
    "BagProbabilities",
    "BagProbabilitiesD",
    "BagProbabilitiesDict",
    "BagProbabilitiesd",
    "MaskToInstanceLabel",
    "MaskToInstanceLabelD",
    "MaskToInstanceLabelDict",
    "MaskToInstanceLabeld",
    "UnpackBagOutputD",
    "UnpackBagOutputDict",
    "UnpackBagOutputd",
]


class BagProbabilities(Transform):
    """Compute the probabilities (C,) of a bag, or its values, from its logits (K,), at least in float32.

    Args:
        task: task that the network was trained for, by one of the losses below.

    ==================== ================================== ===================================================
    task                 loss                               probabilities
    ==================== ================================== ===================================================
    ``"classification"`` cross-entropy, or                  softmax over K classes; (2,) from a single logit,
                         ``MultiLabelLoss`` with one logit  whose softmax would always be 1
    ``"multilabel"``     ``MultiLabelLoss``                 sigmoid of every logit
    ``"ordinal"``        ``OrdinalLoss``                    K + 1 classes, see ``ordinal_probabilities``
    ``"survival"``       ``DiscreteSurvivalLoss``           survival of every time bin, see ``survival_curve``
    ``"regression"``     ``RegressionLoss``                 none: the values are the logits
    ``"cox"``            ``CoxLoss``                        none: the risk, a relative log hazard, is the logit
    ==================== ================================== ===================================================

    Raises:
        ValueError: when the task is unknown, or the logits do not have the shape (K,).

    Example:
        >>> BagProbabilities()(torch.tensor([0.0])), BagProbabilities()(torch.tensor([0.0, 0.0]))
        (tensor([0.5000, 0.5000]), tensor([0.5000, 0.5000]))
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, task: str = "classification") -> None:
        check_choice("task", task, TASKS)
        self.task = task

    def __call__(self, logits: NdarrayOrTensor) -> Tensor:
        """Convert the logits of one bag to probabilities."""
        z = logits.as_tensor() if isinstance(logits, MetaTensor) else torch.as_tensor(logits)
        if z.ndim != 1 or not len(z):
            raise ValueError(f"`logits` must have shape (K,), got {tuple(z.shape)}.")
        return logits_to_probabilities(z, self.task)


class BagProbabilitiesd(MapTransform):
    """Dictionary form of :py:class:`BagProbabilities`.

    Args:
        keys: logits (K,) of one bag.
        task: see :py:class:`BagProbabilities`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = BagProbabilities.backend

    def __init__(
        self, keys: KeysCollection = "pred", task: str = "classification", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.probabilities = BagProbabilities(task)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the logits of each key to probabilities."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.probabilities(d[key])
        return d


class MaskToInstanceLabel(Transform):
    """Label an instance 1 if any voxel of its mask is above 0, and 0 otherwise.

    Example:
        >>> MaskToInstanceLabel()(torch.eye(2).view(2, 1, 1, 2) * torch.tensor([1, 0]))
        tensor([1, 0])
    """

    backend = [TransformBackends.TORCH]

    def __call__(self, mask: NdarrayOrTensor) -> Tensor:
        """Convert the masks (N, ...) of a bag to labels (N,), int64."""
        values = mask.as_tensor() if isinstance(mask, MetaTensor) else torch.as_tensor(mask)
        if values.ndim < 2:
            raise ValueError(f"`mask` must have shape (N, ...) with voxels, got {tuple(values.shape)}.")
        return (values > 0).flatten(1).any(dim=1).long()


class MaskToInstanceLabeld(MapTransform):
    """Dictionary form of :py:class:`MaskToInstanceLabel`.

    Args:
        keys: masks (N, ...) of a bag.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = MaskToInstanceLabel.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label = MaskToInstanceLabel()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the masks of each key to labels."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.label(d[key])
        return d


class UnpackBagOutputd(MapTransform):
    """Unpack the output of a bag network: the logits stay under its key, other values get their own keys.

    ``{"pred": {"logits": a, "attention": b}}`` becomes ``{"pred": a, "attention": b}``. Use it first in the
    postprocessing, since MONAI's transforms expect logits under ``pred``.

    Args:
        keys: outputs of a bag network, mappings with ``logits``.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when an output is not a mapping with ``logits``.

    Example:
        >>> UnpackBagOutputd("pred")({"pred": {"logits": 1, "attention": 2}})
        {'pred': 1, 'attention': 2}
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection = "pred", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Unpack the output of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            output = d[key]
            if not isinstance(output, Mapping) or "logits" not in output:
                got = sorted(map(str, output)) if isinstance(output, Mapping) else type(output).__name__
                raise ValueError(f"`{key!s}` must be a mapping with 'logits' (BagOutputWrapper gives it), got {got}.")
            d[key] = output["logits"]
            d.update({name: value for name, value in output.items() if name != "logits"})
        return d


BagProbabilitiesD = BagProbabilitiesDict = BagProbabilitiesd
MaskToInstanceLabelD = MaskToInstanceLabelDict = MaskToInstanceLabeld
UnpackBagOutputD = UnpackBagOutputDict = UnpackBagOutputd
