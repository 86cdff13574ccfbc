"""Loss of Cox's proportional hazards model, for bags of which some are censored."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.utils import check_values, without_autocast

from .label_loss import LabelLoss

__all__ = ["CoxLoss"]


class CoxLoss(LabelLoss):
    r"""Negative log partial likelihood of Cox's proportional hazards model, with Efron's method for tied events.

    A network with one logit z per bag predicts the logarithm of its hazard, up to a constant that all bags share. Of
    the bags that are at risk at the time t of an event, those with a time of at least t, the loss compares the ones
    with the event then, :math:`D_t`, with all others, :math:`R_t`:

    .. math::
        L = \frac{1}{\sum_t d_t} \sum_t \left( \sum_{l=0}^{d_t - 1} \log \left( \sum_{j \in R_t} e^{z_j} +
        \left( 1 - \frac{l}{d_t} \right) \sum_{j \in D_t} e^{z_j} \right) - \sum_{i \in D_t} z_i \right),
        \quad d_t = |D_t|

    With ``reduction="sum"`` this is the negative of lifelines' ``CoxPHFitter.log_likelihood_``. Sums of exponentials
    are computed as logarithms, in float32 (float64 stays float64), also under autocast.

    Bags are compared within a batch only: a batch of one bag, or without an event, has the loss 0, and large batches
    are closer to the likelihood of the cohort. Memory grows with the square of the batch size.

    Args:
        reduction: ``"mean"`` over events, ``"sum"`` or ``"none"`` for one value per bag, which is 0 for censored bags
            and the mean of tied events for each of them.

    Raises:
        ValueError: when ``reduction`` is unknown, or an input has the wrong shape or range.

    References:
        Efron, "The Efficiency of Cox's Likelihood Function for Censored Data", Journal of the American Statistical
        Association 72(359), 1977.

        Katzman et al., "DeepSurv: personalized treatment recommender system using a Cox proportional hazards deep
        neural network", BMC Medical Research Methodology 18, 2018, arXiv:1606.00931.

    Example:
        >>> loss, equal_risks = CoxLoss(reduction="none"), torch.zeros(4, 1)
        >>> (-loss(equal_risks, time=torch.tensor([1, 5, 5, 9]), event=torch.tensor([1, 1, 0, 1]))).exp()
        tensor([0.2500, 0.3333, 1.0000, 1.0000])
    """

    def forward(self, logits: Tensor, time: Tensor, event: Tensor | None = None) -> Tensor:
        """Compute the loss of logits (B, 1) for times ``time`` (B,) and events ``event`` (B,), 0 if censored.

        Without ``event``, ``time`` (B, 2) holds time and event, since a trainer passes a single label.
        """
        time, event = self.time_and_event(time, event)
        with without_autocast(logits):
            z = self.float_logits(logits)
            if z.shape[1] != 1:
                raise ValueError(f"`logits` must have shape (B, 1), got {tuple(z.shape)}.")
            e = self.class_indices("event", event, z, 1).squeeze(1).bool()
            return self.reduce(_partial_likelihood(z.squeeze(1), _checked_times(time, z), e), e)


def _checked_times(time: Tensor, logits: Tensor) -> Tensor:
    if time.shape != logits.shape[:1]:
        raise ValueError(f"`time` must have shape (B,) = ({len(logits)},), got {tuple(time.shape)}.")
    check_values(time.isfinite(), lambda: f"`time` must be finite, got {time[~time.isfinite()][0].item()}.")
    return time


def _partial_likelihood(z: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Return the negative log partial likelihood (B,), the mean of tied events for each; meaningless if censored."""
    tied = (time.unsqueeze(1) == time) & event  # [i, j]: bag j has an event at the time of bag i
    later = (time >= time.unsqueeze(1)) & ~tied
    number = tied.sum(dim=1).clamp(min=1).to(z.dtype)
    order = tied.tril(diagonal=-1).sum(dim=1).to(z.dtype)  # l: events at the same time that come first in the batch
    weight = torch.where(event, 1 - order / number, torch.ones_like(number))
    total = torch.logaddexp(_masked_logsumexp(z, later), _masked_logsumexp(z, tied) + weight.log())
    return (tied.to(z.dtype) @ (total - z)) / number


def _masked_logsumexp(z: Tensor, mask: Tensor) -> Tensor:
    """Return the logarithm (B,) of the sums of exp(z) over the rows of a mask (B, B).

    An empty sum is a quarter of the lowest number: with minus infinity, gradients would be NaN.
    """
    return z.expand(mask.shape).masked_fill(~mask, torch.finfo(z.dtype).min / 4).logsumexp(dim=1)
