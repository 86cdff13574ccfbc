"""On how many instances attention rests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_mil_ext.utils import head_mean

from .bag_metric import BagIterationMetric, is_share

__all__ = ["AttentionMassMetric", "attention_mass"]


def attention_mass(
    attention: Tensor, top: Sequence[int] = (1, 5, 10), quantiles: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
) -> dict[str, float]:
    r"""Concentration of one bag's attention (N,), divided by its sum; N is the number of real instances.

    ``top_<k>``: sum of the k largest. ``coverage_<q>``: least number of instances that hold the share q, and
    ``coverage_ratio_<q>`` that number over N. ``entropy`` :math:`Q = -\sum a \log a` in nats and ``entropy_ratio``
    :math:`Q / \log N` (1 for a single instance). ``effective_entropy`` :math:`e^Q` and ``effective_number``
    :math:`1 / \sum a^2`: how many instances would give the same if they shared attention equally. ``gini``: 0 when all
    get the same, :math:`1 - 1/N` when one gets all. ``peak``: N times the largest, 1 when all get the same.

    Args:
        attention: weights of the real instances of one bag and head, not negative.
        top: the k of ``top_<k>``; a bag that has fewer instances gives 1.
        quantiles: the q of ``coverage_<q>``, in (0, 1].

    Raises:
        ValueError: when attention is not (N,) of at least one finite weight, or is negative, or sums to nothing.

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
        # a sum of weights rounded to float32 may stay below the share that it reaches on paper
        count = int((cumulated < q - 1e-6).sum()) + 1
        values |= {f"coverage_{q}": float(count), f"coverage_ratio_{q}": count / n}
    entropy = float(torch.special.entr(a).sum())
    rank = torch.arange(n, 0, -1, dtype=a.dtype)  # ascending order counts from the smallest
    return values | {
        "entropy": entropy,
        "entropy_ratio": entropy / float(torch.log(torch.tensor(float(n)))) if n > 1 else 1.0,
        "effective_entropy": float(torch.tensor(entropy).exp()),
        "effective_number": float(1 / a.square().sum()),
        "gini": float((2 * (rank * a).sum() - (n + 1)) / n),
        "peak": n * float(a[0]),
    }


class AttentionMassMetric(BagIterationMetric):
    """Mean over bags of one value of :py:func:`attention_mass`.

    Args:
        metric: its name there, such as ``"top_10"`` or ``"coverage_0.9"``.

    Raises:
        ValueError: when there is no such value.
    """

    def __init__(self, metric: str = "effective_number") -> None:
        super().__init__()
        word, _, number = metric.rpartition("_")
        self.metric = metric
        self._top = (int(number),) if word == "top" and number.isdigit() and int(number) > 0 else ()
        self._quantiles = (float(number),) if word in ("coverage", "coverage_ratio") and is_share(number) else ()
        known = attention_mass(torch.ones(2), self._top, self._quantiles)
        if metric not in known:
            raise ValueError(
                "`metric` must be top_<k>, coverage_<q>, coverage_ratio_<q> or one of "
                f"{', '.join(attention_mass(torch.ones(2), (), ()))}, got {metric!r}."
            )

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Value (B, 1) of attention (B, N), or of the mean over heads of attention (B, N, A), padding cut off."""
        values = [attention_mass(head_mean(a), self._top, self._quantiles)[self.metric] for a in y_pred]
        return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)

    def aggregate(self) -> Tensor:
        """Mean over the bags since the last reset."""
        return self.mean()[0]
