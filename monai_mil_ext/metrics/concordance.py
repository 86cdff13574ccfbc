"""Concordance index of survival predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .bag_iteration_metric import BagIterationMetric

__all__ = ["ConcordanceIndexMetric", "concordance_index"]


def concordance_index(risk: Tensor, time: Tensor, event: Tensor) -> float:
    r"""Compute Harrell's concordance index (C-index).

    .. math:: C = \frac{1}{|P|} \sum_{(i, j) \in P} \big([r_i > r_j] + \tfrac12 [r_i = r_j]\big)

    where P holds the comparable pairs: i had an event, and j was event-free at that time, with a later time or censored
    at the same time. Two events at the same time are not comparable. Memory is linear in B, since pairs are counted
    but not stored.

    Args:
        risk: predicted risk (B,), higher for an earlier event.
        time: time (B,) of the event or of censoring.
        event: 1 for an event, 0 for censoring (B,).

    Returns:
        The index, from 0 to 1; NaN if no pair is comparable.

    Raises:
        ValueError: if the shapes are not (B,), a risk or a time is NaN, or an event is neither 0 nor 1.

    References:
        Harrell et al., "Evaluating the Yield of Medical Tests", JAMA 247(18), 1982.

    Example:
        >>> time, event = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 1])
        >>> [concordance_index(risk, time, event) for risk in (-time, time, torch.tensor([2.0, 1.0, 2.0]))]
        [1.0, 0.0, 0.75]
    """
    r, t, e = _checked(risk, time, event)
    twice = pairs = 0
    for rows in e.nonzero().squeeze(1).split(1024):  # chunks of events, so that memory stays linear in B
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
    invalid = (event != 0) & (event != 1)
    if invalid.any():
        raise ValueError(f"`event` must be 0 or 1, got {event[invalid][0].item()}.")
    return risk.detach(), time, event.bool()


class ConcordanceIndexMetric(BagIterationMetric):
    """Concordance index of all bags since the last reset, see :py:func:`concordance_index`.

    Pairs across batches and processes count, so this is not a mean over batches.

    Raises:
        ValueError: if an input has the wrong shape, or there are no bags.

    Example:
        >>> metric = ConcordanceIndexMetric()
        >>> for risk, time, event in ((0.9, 1.0, 1.0), (0.2, 5.0, 0.0)):
        ...     _ = metric(torch.tensor([risk]), torch.tensor([[time, event]]))
        >>> metric.aggregate().item()
        1.0
    """

    rows_are_outputs = True
    per_instance = (False, False)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return rows (B, 3) of risk, time and event, from which :py:meth:`aggregate` counts the pairs."""
        if y_pred.shape not in ((len(y_pred),), (len(y_pred), 1)):
            raise ValueError(f"`y_pred` must be risks (B,) or (B, 1), got {tuple(y_pred.shape)}.")
        if y is None or y.shape != (len(y_pred), 2):
            got = None if y is None else tuple(y.shape)
            raise ValueError(f"`y` must be time and event (B, 2) = ({len(y_pred)}, 2), got {got}.")
        return torch.cat([y_pred.reshape(-1, 1).double(), y.double()], dim=1)

    def aggregate(self) -> Tensor:
        """Compute the index as a float64 tensor (); NaN if no pair is comparable."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("`y_pred` must be given before the index is computed, got none.")
        return torch.tensor(concordance_index(*rows.unbind(dim=1)), dtype=torch.float64)
