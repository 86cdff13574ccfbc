"""Synthetic bags drawn from a pool of labeled instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys
from torch import Tensor
from torch.utils.data import Dataset

from monai_mil_ext.utils import BagKeys, check_positive

__all__ = ["LabeledPoolBagDataset"]


class LabeledPoolBagDataset(Dataset[dict[str, Any]]):
    r"""Dataset of bags drawn from labeled instances; a bag is positive if it contains an instance of one class.

    .. math::
        N = \max(1, \operatorname{round}(s)), \; s \sim \mathcal{N}(m, \sigma^2), \quad
        i_1, \dots, i_N \sim U\{0, \dots, M - 1\}, \quad y_n = [c_{i_n} = c_+], \quad y = \max_n y_n

    With MNIST digits, class 9 and the default sizes, these are the MNIST-bags of Ilse et al. One PyTorch generator
    on the CPU draws all sizes and then all instances, with replacement. An item has ``image`` (N, ...), in the dtype
    of the pool, ``label``, ``instance_label`` (N,) int64 and ``case_id``.

    Args:
        instances: the pool (M, ...).
        classes: class (M,) of each instance.
        num_bags: number of bags.
        seed: seed of the generator.
        positive: the class :math:`c_+`.
        size: mean m and standard deviation :math:`\sigma` of the number of instances.

    Raises:
        ValueError: when there is no bag or no instance, the two arrays differ in length, the pool lacks instances of
            the positive class, the mean is not positive or the deviation negative.

    References:
        Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", arXiv:1802.04712.

    Example:
        >>> bags = LabeledPoolBagDataset(torch.arange(20), torch.arange(20) % 10, num_bags=3, seed=0, size=(4, 1))
        >>> bags[0]["image"].tolist(), bags[0]["instance_label"].tolist(), int(bags[0]["label"])
        ([17, 3, 1, 6, 16, 19], [0, 0, 0, 0, 0, 1], 1)
    """

    def __init__(
        self,
        instances: Tensor | np.ndarray[Any, Any],
        classes: Tensor | np.ndarray[Any, Any] | Sequence[int],
        num_bags: int,
        seed: int,
        positive: int = 9,
        size: tuple[float, float] = (10.0, 2.0),
    ) -> None:
        check_positive(num_bags=num_bags)
        self.seed = seed
        self.instances, classes = torch.as_tensor(instances), torch.as_tensor(classes)
        self.is_positive = (classes == positive).long()
        _check(self.instances, self.is_positive, positive, size)
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.randn(num_bags, generator=generator, dtype=torch.float64) * size[1] + size[0]
        self.lengths = sizes.round().long().clamp(min=1)
        self.rows = torch.randint(len(self.instances), (int(self.lengths.sum()),), generator=generator)
        self.offsets = self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        """Return the number of bags."""
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one bag; a negative ``index`` counts from the end."""
        number = range(len(self))[index]
        rows = self.rows[int(self.offsets[number]) :][: int(self.lengths[number])]
        instance_labels = self.is_positive[rows]
        return {
            str(CommonKeys.IMAGE): self.instances[rows],
            str(CommonKeys.LABEL): instance_labels.max(),
            str(BagKeys.INSTANCE_LABEL): instance_labels,
            str(BagKeys.CASE_ID): f"{self.seed}-{number}",
        }


def _check(instances: Tensor, is_positive: Tensor, positive: int, size: tuple[float, float]) -> None:
    if is_positive.shape != instances.shape[:1] or not len(is_positive):
        rule = f"have a class for each of the {len(instances) if instances.ndim else 0} instances, at least one"
        raise ValueError(f"`classes` must {rule}, got shape {tuple(is_positive.shape)}.")
    if not is_positive.any():
        raise ValueError(f"`positive` must be a class of the pool, got {positive!r}, which no instance has.")
    if not (size[0] > 0 and size[1] >= 0):
        raise ValueError(f"`size` must be a positive mean and a deviation that is not negative, got {tuple(size)}.")
