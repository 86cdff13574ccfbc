"""Whether those at higher risk have their event earlier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .bag_metric import BagIterationMetric

__all__ = ["ConcordanceIndexMetric", "concordance_index"]


def concordance_index(risk: Tensor, time: Tensor, event: Tensor) -> float:
    r"""Harrell's C: share of the comparable pairs in which the one whose event came first had the higher risk.

    .. math:: C = \frac{1}{|P|} \sum_{(i, j) \in P} \big([r_i > r_j] + \tfrac12 [r_i = r_j]\big)

    A pair is comparable when i had an event and j is known to have been free of it then: its time is later, or the same
    and censored. Two events at the same time say nothing about which came first. NaN where no pair is comparable. The
    pairs are counted, never stored.

    Args:
        risk: any number (B,), higher for an earlier event.
        time: of the event, or of censoring (B,).
        event: 1 if there was an event, 0 if censored (B,).

    Raises:
        ValueError: when the shapes are not (B,), a risk or a time is NaN, or an event neither 0 nor 1.

    References:
        Harrell et al., "Evaluating the Yield of Medical Tests", JAMA 247(18), 1982.

    Example:
        >>> time, event = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 1])
        >>> [concordance_index(risk, time, event) for risk in (-time, time, torch.tensor([2.0, 1.0, 2.0]))]
        [1.0, 0.0, 0.75]
    """
    r, t, e = _checked(risk, time, event)
    twice = pairs = 0
    for rows in e.nonzero().squeeze(1).split(1024):  # events at a time, so that memory stays linear in B
        ti, ri = t[rows].unsqueeze(1), r[rows].unsqueeze(1)
        comparable = (t > ti) | ((t == ti) & ~e)
        pairs += int(comparable.sum())
        twice += int((comparable & (ri > r)).sum() + (comparable & (ri >= r)).sum())
    return twice / (2 * pairs) if pairs else float("nan")


def _checked(risk: Tensor, time: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    for name, value in (("risk", risk), ("time", time), ("event", event)):
        if value.ndim != 1 or value.shape != risk.shape:
            raise ValueError(f"`{name}` must have shape (B,) = ({risk.numel()},), got {tuple(value.shape)}.")
        if value.isnan().any():
            raise ValueError(f"`{name}` must not be NaN, got {int(value.isnan().sum())} NaN of {len(value)}.")
    bad = (event != 0) & (event != 1)
    if bad.any():
        raise ValueError(f"`event` must be 0 or 1, got {event[bad][0].item()}.")
    return risk.detach(), time, event.bool()


class ConcordanceIndexMetric(BagIterationMetric):
    """:py:func:`concordance_index` of all bags since the last reset.

    Pairs across batches and ranks count too, so this is not a mean over batches.

    Raises:
        ValueError: when an input has the wrong shape, or there is none.

    Example:
        >>> metric = ConcordanceIndexMetric()
        >>> for risk, time, event in ((0.9, 1.0, 1.0), (0.2, 5.0, 0.0)):
        ...     _ = metric(torch.tensor([risk]), torch.tensor([[time, event]]))
        >>> metric.aggregate().item()
        1.0
    """

    per_instance = (False, False)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Rows (B, 3) of risk (B,) or (B, 1), and time and event (B, 2); the pairs are counted in the end."""
        if y_pred.shape not in ((len(y_pred),), (len(y_pred), 1)):
            raise ValueError(f"`y_pred` must be risks (B,) or (B, 1), got {tuple(y_pred.shape)}.")
        if y is None or y.shape != (len(y_pred), 2):
            got = None if y is None else tuple(y.shape)
            raise ValueError(f"`y` must be time and event (B, 2) = ({len(y_pred)}, 2), got {got}.")
        return torch.cat([y_pred.reshape(-1, 1).double(), y.double()], dim=1)

    def aggregate(self) -> Tensor:
        """The index, float64; NaN where no pair is comparable."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("`y_pred` must be given before the index is asked for, got none.")
        return torch.tensor(concordance_index(*rows.unbind(dim=1)), dtype=torch.float64)
