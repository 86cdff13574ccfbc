"""The normalised sigmoid: attention that is flat among what scores high and keeps what scores low near zero."""

from typing import Optional

import torch
from torch import Tensor

from monai_mil_ext.utils import check_choice

from .masked import masked_softmax, zero_padding

__all__ = ["log_sigmoid_scores", "normalized_sigmoid"]


def normalized_sigmoid(
    scores: Tensor, mask: Optional[Tensor] = None, temperature: float = 1.0, center: str = "none"
) -> Tensor:
    r"""Sigmoid over the instances of each bag, divided by its sum; padding gets exactly zero.

    .. math:: a_{nh} = \frac{m_n \sigma(s_{nh} / \tau)}{\sum_k m_k \sigma(s_{kh} / \tau)}

    It is computed in log space and float32 (float64 stays float64), so that a row of very low scores sums to one too.
    Where high scores are at least :math:`t` and low ones at most :math:`-t`, two of h high ones differ by a factor of
    at most :math:`1 + e^{-t}`, however far apart, and a low one gets at most :math:`e^{-t} / h`. Unlike a softmax it
    changes when all scores are shifted: far below zero it is a softmax, far above it is uniform.

    Args:
        scores: (B, N, H), H scores an instance.
        mask: (B, N), True for a real instance; ``None`` if all are real.
        temperature: :math:`\tau`.
        center: ``"mean"`` takes the mean over the real instances off each row of scores first, ``"none"`` does not.

    Returns:
        (B, N, H) in float32 or float64, summing to one over N; all zero for a bag with no real instance.

    Raises:
        ValueError: when ``temperature`` is not positive or ``center`` none of these.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> scores = torch.tensor([[[9.0], [5.0], [-5.0]]])
        >>> [round(a, 3) for a in normalized_sigmoid(scores).flatten().tolist()]
        [0.5, 0.497, 0.003]
    """
    return masked_softmax(log_sigmoid_scores(scores, mask, temperature, center), mask)


def log_sigmoid_scores(
    scores: Tensor, mask: Optional[Tensor] = None, temperature: float = 1.0, center: str = "none"
) -> Tensor:
    """Scores (B, N, H) whose softmax is the normalised sigmoid of the given ones, zero's at padding."""
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature!r}.")
    check_choice("center", center, ("none", "mean"))
    real = zero_padding(scores.to(torch.promote_types(scores.dtype, torch.float32)), mask)
    if center == "mean":
        counted = torch.ones_like(real[..., 0]) if mask is None else mask.to(real.dtype)
        real = real - real.sum(1, keepdim=True) / counted.sum(1).clamp(min=1).view(-1, 1, 1)
    return torch.nn.functional.logsigmoid(real if temperature == 1 else real / temperature)
