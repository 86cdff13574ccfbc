"""Discrete-time survival loss and survival curves, for bags of which some are censored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from monai_mil_ext.utils import check_fraction, logits_to_probabilities, without_autocast

from .label_loss import LabelLoss

__all__ = ["DiscreteSurvivalLoss", "survival_curve"]


class DiscreteSurvivalLoss(LabelLoss):
    r"""Negative log-likelihood of the time bin of an event, or of survival up to the bin of censoring.

    With hazards :math:`h_t = \sigma(z_t)`, survival :math:`S_t = \prod_{s \le t} (1 - h_s)`, :math:`S_{-1} = 1`, bin
    :math:`t` and event :math:`e` (0: censored):

    .. math::
        L = (1 - \alpha)\,(L_e + L_c) + \alpha\, L_e, \quad
        L_e = -e\,(\log S_{t-1} + \log h_t), \quad L_c = -(1 - e) \log S_t

    A bag that is censored in a bin is assumed to survive that bin. With :math:`\alpha = 0` this is the negative
    log-likelihood, whose expectation is minimal at the true hazards for any independent censoring. Any other alpha
    multiplies the loss of censored bags, and of no others, by :math:`1 - \alpha`: the form in common use since MCAT,
    which is not a likelihood. With the fraction :math:`A_t` of bags with an event in bin t, :math:`D_t` with an event
    after it and :math:`Q_t` censored in it or later, the expectation is then minimal at

    .. math:: h_t^\ast = \frac{A_t}{A_t + D_t + (1 - \alpha)\, Q_t}

    which overestimates the hazards wherever bags are censored, and underestimates survival. Products of probabilities
    are computed as sums of logarithms, in float32 (float64 stays float64), also under autocast.

    Args:
        alpha: from 0, the likelihood, to 1, which ignores censored bags.
        reduction: ``"mean"`` over all bags, ``"sum"`` or ``"none"`` for one value per bag.

    Raises:
        ValueError: when ``alpha`` is not from 0 to 1, ``reduction`` is unknown, or an input has the wrong shape or
            range.

    References:
        Zadeh, Schmid, "Bias in Cross-Entropy-Based Training of Deep Survival Networks", IEEE Transactions on Pattern
        Analysis and Machine Intelligence 43(9), 2021, https://doi.org/10.1109/TPAMI.2020.2979450

        Alpha: Chen et al., "Multimodal Co-Attention Transformer for Survival Prediction in Gigapixel Whole Slide
        Images", ICCV 2021.

    Example:
        >>> loss, even_odds = DiscreteSurvivalLoss(reduction="none"), torch.zeros(3, 4)
        >>> (-loss(even_odds, time=torch.tensor([0, 2, 2]), event=torch.tensor([1, 1, 0]))).exp().tolist()
        [0.5, 0.125, 0.125]
    """

    def __init__(self, alpha: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_fraction(alpha=alpha)
        self.alpha = alpha

    def forward(self, logits: Tensor, time: Tensor, event: Tensor | None = None) -> Tensor:
        """Compute the loss of hazard logits (B, T) for bins ``time`` (B,) and events ``event`` (B,).

        Without ``event``, ``time`` (B, 2) holds bin and event, since a trainer passes a single label.
        """
        time, event = self.time_and_event(time, event)
        with without_autocast(logits):
            z = self.float_logits(logits)
            t = self.class_indices("time", time, z, z.shape[1] - 1)
            e = self.class_indices("event", event, z, 1).bool()
            bins = torch.arange(z.shape[1], device=z.device)
            event_in_bin = ((bins == t) & e).to(z.dtype)
            per_bin = binary_cross_entropy_with_logits(z, event_in_bin, reduction="none")
            nll = per_bin.masked_fill(bins > t, 0.0).sum(dim=1, keepdim=True)
            return self.reduce(torch.where(e, nll, (1 - self.alpha) * nll).squeeze(1))


def survival_curve(logits: Tensor) -> Tensor:
    r"""Return the probability (B, T) of surviving each bin, :math:`S_t = \prod_{s \le t} (1 - \sigma(z_s))`.

    Its negative sum over the bins is the usual risk score of :py:func:`concordance_index`.

    Raises:
        ValueError: when the logits have the wrong shape.

    Example:
        >>> survival_curve(torch.zeros(1, 3)).tolist()
        [[0.5, 0.25, 0.125]]
    """
    with without_autocast(logits):
        return logits_to_probabilities(LabelLoss().float_logits(logits), "survival")
