"""Time to an event in bins, for bags of which some are censored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from .label_loss import LabelLoss

__all__ = ["DiscreteSurvivalLoss", "survival_curve"]


class DiscreteSurvivalLoss(LabelLoss):
    r"""Negative log-likelihood of the bin in which an event came, or up to which none had come.

    With hazards :math:`h_t = \sigma(z_t)`, survival :math:`S_t = \prod_{s \le t} (1 - h_s)`, :math:`S_{-1} = 1`, bin
    :math:`t` and event :math:`e` (0: censored):

    .. math::
        L = (1 - \alpha)\,(L_e + L_c) + \alpha\, L_e, \quad
        L_e = -e\,(\log S_{t-1} + \log h_t), \quad L_c = -(1 - e) \log S_t

    A bag that is censored in a bin is taken to outlive it. With :math:`\alpha = 0` this is the negative log-likelihood,
    whose expectation is least at the true hazards, whatever the (independent) censoring. Any other alpha multiplies the
    loss of every censored bag by :math:`1 - \alpha` and that of no other: the form in common use since MCAT, which is
    no likelihood. With :math:`A_t` the share of events in bin t, :math:`D_t` of events after it and :math:`Q_t` of bags
    censored in it or after, the expectation is then least at

    .. math:: h_t^\ast = \frac{A_t}{A_t + D_t + (1 - \alpha)\, Q_t}

    too high wherever bags are censored, and survival too low. No product of probabilities is formed: everything is
    computed from their logarithms, in float32 (float64 stays float64), under autocast too.

    Args:
        alpha: from 0, the likelihood, to 1, which leaves censored bags out.
        reduction: ``"mean"`` over all bags, ``"sum"`` or ``"none"``, one value a bag.

    Raises:
        ValueError: when ``alpha`` is not from 0 to 1, ``reduction`` none of these, or an input has the wrong shape or
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
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be from 0 to 1, got {alpha!r}.")
        self.alpha = alpha

    def forward(self, logits: Tensor, time: Tensor, event: Tensor | None = None) -> Tensor:
        """Loss of logits (B, T) of hazards; ``time`` (B,) is a bin, or (B, 2) bin and event in one, as trainers do."""
        if event is None:
            if time.ndim != 2 or time.shape[1] != 2:
                raise ValueError(f"`time` must have shape (B, 2) where `event` is None, got {tuple(time.shape)}.")
            time, event = time.unbind(dim=1)
        with torch.autocast(logits.device.type, enabled=False):
            z = self.real_logits(logits)
            t = self.whole_numbers("time", time, z, z.shape[1] - 1)
            e = self.whole_numbers("event", event, z, 1).bool()
            bins = torch.arange(z.shape[1], device=z.device)
            here = ((bins == t) & e).to(z.dtype)
            each = binary_cross_entropy_with_logits(z, here, reduction="none")
            nll = each.masked_fill(bins > t, 0.0).sum(dim=1, keepdim=True)
            return self.reduce(torch.where(e, nll, (1 - self.alpha) * nll).squeeze(1))


def survival_curve(logits: Tensor) -> Tensor:
    r"""Probability (B, T) of outliving each bin, :math:`S_t = \prod_{s \le t} (1 - \sigma(z_s))`.

    Its negative sum over the bins is the risk that :py:func:`concordance_index` is mostly taken of.

    Raises:
        ValueError: when the logits have the wrong shape.

    Example:
        >>> survival_curve(torch.zeros(1, 3)).tolist()
        [[0.5, 0.25, 0.125]]
    """
    with torch.autocast(logits.device.type, enabled=False):
        return logsigmoid(-LabelLoss().real_logits(logits)).cumsum(dim=1).exp()
