"""Attention mass of the top k instances, averaged over bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive

from .concentration import attention_mass

__all__ = ["MassCurve", "mass_curve"]

SUMMARY = ("effective_number", "entropy_ratio", "gini", "coverage_ratio_0.8")


class MassCurve(NamedTuple):
    """Attention mass averaged over bags.

    Attributes:
        mass: sums (K,) of the k largest weights for k = 1, ..., K.
        uniform: the same (K,) for uniform attention, min(k / N, 1).
        summary: ``effective_number``, ``entropy_ratio``, ``gini`` and ``coverage_ratio_0.8`` of
            :py:func:`attention_mass`.
        num_bags: number of bags.
    """

    mass: Tensor
    uniform: Tensor
    summary: dict[str, float]
    num_bags: int

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain types for JSON."""
        return {**self._asdict(), "mass": self.mass.tolist(), "uniform": self.uniform.tolist()}


def mass_curve(bags: Sequence[Tensor], longest: int = 10) -> MassCurve:
    """Compute the mean attention mass of the k instances with the most attention, for k = 1, ..., K.

    Args:
        bags: attention (N,) of the valid instances of each bag.
        longest: largest number K of instances.

    Returns:
        The curve.

    Raises:
        ValueError: if there is no bag, or as in :py:func:`attention_mass`.

    Example:
        >>> curve = mass_curve([torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.5])], longest=3)
        >>> [round(mass, 2) for mass in curve.mass.tolist()], [round(mass, 2) for mass in curve.uniform.tolist()]
        ([0.6, 0.95, 1.0], [0.42, 0.83, 1.0])
    """
    check_positive(longest=longest)
    if not bags:
        raise ValueError("`bags` must have the attention of at least one bag, got none.")
    top = torch.arange(1, longest + 1)
    metrics = [attention_mass(attention, top.tolist(), (0.8,)) for attention in bags]
    mass = torch.tensor([[values[f"top_{k}"] for k in top.tolist()] for values in metrics], dtype=torch.float64)
    uniform = torch.stack([(top.double() / len(attention)).clamp(max=1) for attention in bags])
    summary = {name: float(torch.tensor([values[name] for values in metrics]).double().mean()) for name in SUMMARY}
    return MassCurve(mass.mean(0), uniform.mean(0), summary, len(bags))
