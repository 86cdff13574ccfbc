"""Loss that draws attention towards the normalized sigmoid of the scores of an anchor network."""

from __future__ import annotations

from torch import Tensor

from monai_mil_ext.networks.layers import masked_log_softmax
from monai_mil_ext.networks.layers.nsf import log_sigmoid_scores
from monai_mil_ext.utils import check_choice, check_positive_number, without_autocast

from .attention_loss import AttentionLoss

__all__ = ["NSFKLLoss"]


class NSFKLLoss(AttentionLoss):
    r"""Kullback-Leibler divergence of attention from the normalized sigmoid of the scores of an anchor.

    Proposed in `ASMIL: Attention-Stabilized Multiple Instance Learning <https://arxiv.org/abs/2603.06658>`_. With the
    scores z of the trained network and z' of the anchor:

    .. math::
        \alpha = \operatorname{softmax}_n z_n, \quad
        \alpha'_n = \frac{\sigma(z'_n / \tau)}{\sum_m \sigma(z'_m / \tau)}, \quad
        L = \sum_n \alpha'_n (\log \alpha'_n - \log \alpha_n), \quad
        \frac{\partial L}{\partial z} = \alpha - \alpha'

    The target has no gradient. Columns of scores are averaged, then bags. All computation is in log space and in
    float32 (float64 stays float64), also under autocast.

    Args:
        temperature: temperature :math:`\tau`.
        center: ``"mean"`` subtracts the mean over the bag from each column of the anchor scores; ``"none"`` does not,
            so that the target changes with a shift of all scores, which no gradient controls.
        over_instances: ``"sum"``, or ``"mean"`` as in the published code, whose weight falls with the bag size.
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when an option is unknown, ``temperature`` is not positive and finite, or an input has the wrong
            shape.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> import torch
        >>> loss, scores = NSFKLLoss(), torch.tensor([[[2.0], [1.0], [-1.0]]])
        >>> [round(loss(z, z).item(), 3) for z in (scores, 0 * scores)]  # the target is flatter than a softmax
        [0.166, 0.0]
    """

    def __init__(
        self, temperature: float = 1.0, center: str = "none", over_instances: str = "sum", reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check_positive_number(temperature=temperature)
        check_choice("center", center, ("none", "mean"))
        check_choice("over_instances", over_instances, ("sum", "mean"))
        self.temperature = temperature
        self.center = center
        self.over_instances = over_instances

    def forward(self, scores: Tensor, anchor_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss of scores (B, N, S), before any softmax, against those of an anchor.

        ``mask`` (B, N) is True for a valid instance.
        """
        if scores.shape != anchor_scores.shape:
            raise ValueError(
                f"`anchor_scores` must have the shape of `scores`, {tuple(scores.shape)}, "
                f"got {tuple(anchor_scores.shape)}."
            )
        with without_autocast(scores):
            z, full_mask = self.real_attention(scores, mask, "scores")
            target = self.log_target(anchor_scores, mask)
            # both logarithms are 0 at padding; in place, since N x S tensors dominate the memory of an anchor
            kl = (target - masked_log_softmax(z, mask)).mul_(target.exp_()).sum(dim=1)
            if self.over_instances == "mean":
                kl = kl / full_mask.sum(dim=1).clamp(min=1)
            return self.reduce(kl, full_mask)

    def log_target(self, anchor_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        r"""Return the target :math:`\log \alpha'` (B, N, S), without a gradient; zero at padding."""
        target = log_sigmoid_scores(anchor_scores.detach(), mask, self.temperature, self.center)
        return masked_log_softmax(target, mask)
