"""Concentration of attention: mass on the top instances and mass curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive, head_mean

from .bag_iteration_metric import BagIterationMetric, is_fraction

__all__ = [
    "AttentionMassMetric",
    "MassCurve",
    "attention_mass",
    "mass_curve",
]


def attention_mass(
    attention: Tensor, top: Sequence[int] = (1, 5, 10), quantiles: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
) -> dict[str, float]:
    r"""Compute concentration metrics of the attention (N,) of a bag, normalized to sum to 1.

    - ``top_<k>``: sum of the k largest weights.
    - ``coverage_<q>``: smallest number of instances whose weights sum to at least q; ``coverage_ratio_<q>``: the same
      divided by N.
    - ``entropy``: :math:`Q = -\sum a \log a` in nats; ``entropy_ratio``: :math:`Q / \log N` (1 for one instance).
    - ``effective_entropy``: :math:`e^Q`; ``effective_number``: :math:`1 / \sum a^2`. Both are the number of instances
      with equal weights that have the same value.
    - ``gini``: 0 for uniform attention, :math:`1 - 1/N` for attention on one instance.
    - ``peak``: N times the largest weight, 1 for uniform attention.

    Args:
        attention: weights (N,) of the valid instances of a bag and a head, not negative.
        top: values k of ``top_<k>``; the result is 1 for bags with fewer instances.
        quantiles: values q of ``coverage_<q>`` in (0, 1].

    Returns:
        Metrics by name.

    Raises:
        ValueError: if attention is empty, has another shape, is negative or not finite, or sums to 0.

    Example:
        >>> mass = attention_mass(torch.tensor([0.6, 0.2, 0.1, 0.1]))
        >>> round(mass["top_1"], 2), mass["coverage_0.8"], round(mass["effective_number"], 2)
        (0.6, 2.0, 2.38)
    """
    a = attention.detach().double()
    if a.ndim != 1 or not len(a) or not a.isfinite().all() or (a < 0).any() or a.sum() <= 0:
        raise ValueError(f"`attention` must be (N,) finite weights >= 0 that sum to more than 0, got {attention}.")
    a = (a / a.sum()).sort(descending=True).values
    n, cumulated = len(a), a.cumsum(0)
    values = {f"top_{k}": float(cumulated[min(k, n) - 1]) for k in top}
    for q in quantiles:
        # with tolerance, since a sum of weights in float32 may stay slightly below q
        count = int((cumulated < q - 1e-6).sum()) + 1
        values |= {f"coverage_{q}": float(count), f"coverage_ratio_{q}": count / n}
    entropy = float(torch.special.entr(a).sum())
    rank = torch.arange(n, 0, -1, dtype=a.dtype)  # rank N belongs to the largest weight
    return values | {
        "entropy": entropy,
        "entropy_ratio": entropy / float(torch.log(torch.tensor(float(n)))) if n > 1 else 1.0,
        "effective_entropy": float(torch.tensor(entropy).exp()),
        "effective_number": float(1 / a.square().sum()),
        "gini": float((2 * (rank * a).sum() - (n + 1)) / n),
        "peak": n * float(a[0]),
    }


class AttentionMassMetric(BagIterationMetric):
    """Mean over bags of a metric of :py:func:`attention_mass`.

    Args:
        metric: name, for example ``"top_10"`` or ``"coverage_0.9"``.

    Raises:
        ValueError: if the metric is unknown.
    """

    def __init__(self, metric: str = "effective_number") -> None:
        super().__init__()
        kind, _, number = metric.rpartition("_")
        self.metric = metric
        self._top = (int(number),) if kind == "top" and number.isdigit() and int(number) > 0 else ()
        self._quantiles = (float(number),) if kind in ("coverage", "coverage_ratio") and is_fraction(number) else ()
        if metric not in attention_mass(torch.ones(2), self._top, self._quantiles):
            raise ValueError(
                "`metric` must be top_<k>, coverage_<q>, coverage_ratio_<q> or one of "
                f"{', '.join(attention_mass(torch.ones(2), (), ()))}, got {metric!r}."
            )

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the metric (B, 1) of attention (B, N) without padding, or of the head mean of (B, N, A)."""
        values = [attention_mass(head_mean(a), self._top, self._quantiles)[self.metric] for a in y_pred]
        return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)

    def aggregate(self) -> Tensor:
        """Compute the mean over all bags since the last reset."""
        return self.mean()[0]


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
