"""Smooth support vector machine loss of the highest score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive_number, without_autocast

from .label_loss import LabelLoss

__all__ = ["SmoothSVMLoss"]

SWITCH = math.log(1000)  # difference of the two highest scores, over tau, as in the published code


class SmoothSVMLoss(LabelLoss):
    r"""Multi-class SVM loss whose maximum is smoothed, as the instance classifiers of CLAM are trained.

    .. math::
        L = \tau \log \sum_c \exp\frac{s_c + \alpha [c \ne y] - s_y}{\tau}, \quad
        L_{\text{hard}} = \max_c \left(s_c + \alpha [c \ne y]\right) - s_y

    For two classes and :math:`\tau = 1` it is :math:`\operatorname{softplus}(\alpha + s_{1-y} - s_y)`. The published
    code uses the hard form where the two highest scores differ by :math:`\tau \ln 1000` or more; there the loss jumps
    by up to 0.003 :math:`\tau`. All computation is in float32 (float64 stays float64), also under autocast.

    Args:
        alpha: margin.
        tau: temperature.
        switch: whether to use the hard form where the published code does.
        reduction: ``"mean"`` over all rows, ``"sum"`` or ``"none"`` for one value per row.

    Raises:
        ValueError: when ``alpha`` or ``tau`` is not positive, ``reduction`` is unknown, there is a single score per
            row, or an input has the wrong shape or range.

    References:
        Berrada, Zisserman, Kumar, "Smooth Loss Functions for Deep Top-k Classification", arXiv:1802.07595.

    Example:
        >>> loss = SmoothSVMLoss(reduction="none")
        >>> loss(torch.tensor([[0.3, -0.2], [0.3, -0.2], [9.0, 0.0]]), torch.tensor([0, 1, 0]))
        tensor([0.9741, 1.7014, 0.0000])
    """

    def __init__(self, alpha: float = 1.0, tau: float = 1.0, switch: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_positive_number(alpha=alpha, tau=tau)
        self.alpha = alpha
        self.tau = tau
        self.switch = switch

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of scores (B, K) for classes (B,)."""
        with without_autocast(logits):
            s = self.float_logits(logits)
            if s.shape[1] < 2:
                raise ValueError(f"`logits` must have two or more columns, got {s.shape[1]}.")
            y = self.class_indices("label", label, s, s.shape[1] - 1)
            margin = s + self.alpha - s.gather(1, y)
            margin = margin.scatter(1, y, 0.0)
            smooth = self.tau * torch.logsumexp(margin / self.tau, dim=1)
            if not self.switch:
                return self.reduce(smooth)
            first, second = s.topk(2, dim=1).values.unbind(dim=1)
            return self.reduce(torch.where(first - second < self.tau * SWITCH, smooth, margin.amax(dim=1)))
