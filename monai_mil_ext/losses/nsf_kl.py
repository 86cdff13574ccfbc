"""A penalty on attention that strays from the normalised sigmoid of an anchor's scores."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import log_sigmoid_scores, masked_log_softmax
from monai_mil_ext.utils import check_choice

from .attention_loss import AttentionLoss

__all__ = ["NSFKLLoss"]


class NSFKLLoss(AttentionLoss):
    r"""Divergence of online attention from the target that an anchor's scores give.

    .. math::
        \alpha = \operatorname{softmax}_n z_n, \quad
        \alpha'_n = \frac{\sigma(z'_n / \tau)}{\sum_m \sigma(z'_m / \tau)}, \quad
        L = \sum_n \alpha'_n (\log \alpha'_n - \log \alpha_n), \quad
        \frac{\partial L}{\partial z} = \alpha - \alpha'

    The target carries no gradient. Columns of scores are averaged, then bags. Everything is computed in log space and
    in float32 (float64 stays float64), under autocast too.

    Args:
        temperature: :math:`\tau`.
        center: ``"mean"`` takes the mean of a bag off each column of the anchor's scores first; ``"none"`` does not,
            and then the target changes with a shift of all scores, which no gradient controls.
        over_instances: ``"sum"``, or ``"mean"`` as the published code has it, whose weight falls with the bag's size.
        reduction: ``"mean"`` over the bags that have an instance, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when an option is none of these, or an input has the wrong shape.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> loss, scores = NSFKLLoss(), torch.tensor([[[2.0], [1.0], [-1.0]]])
        >>> [round(loss(z, z).item(), 3) for z in (scores, 0 * scores)]  # the target is flatter than a softmax
        [0.166, 0.0]
    """

    def __init__(
        self, temperature: float = 1.0, center: str = "none", over_instances: str = "sum", reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {temperature!r}.")
        check_choice("center", center, ("none", "mean"))
        check_choice("over_instances", over_instances, ("sum", "mean"))
        self.temperature = temperature
        self.center = center
        self.over_instances = over_instances

    def forward(self, scores: Tensor, anchor_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of scores (B, N, S), before any softmax, against those of an anchor; ``mask`` (B, N) True if real."""
        if scores.shape != anchor_scores.shape:
            raise ValueError(
                f"`anchor_scores` must have the shape of `scores`, {tuple(scores.shape)}, "
                f"got {tuple(anchor_scores.shape)}."
            )
        with torch.autocast(scores.device.type, enabled=False):
            z, real = self.real_attention(scores, mask, "scores")
            target = self.log_target(anchor_scores, mask)
            # both logarithms are 0 at padding; in place, for N x S numbers are what an anchor's memory consists of
            kl = (target - masked_log_softmax(z, mask)).mul_(target.exp_()).sum(dim=1)
            if self.over_instances == "mean":
                kl = kl / real.sum(dim=1).clamp(min=1)
            return self.reduce(kl, real)

    def log_target(self, anchor_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        r""":math:`\log \alpha'` (B, N, S), without a gradient; zero at padding."""
        target = log_sigmoid_scores(anchor_scores.detach(), mask, self.temperature, self.center)
        return masked_log_softmax(target, mask)
