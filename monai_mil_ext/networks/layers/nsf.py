"""Normalized sigmoid, an attention that is flat among high scores and near zero for low scores."""

from typing import Optional

import torch
from torch import Tensor

from monai_mil_ext.utils import check_choice, check_positive_number

from .masked import zero_out_padding

__all__ = ["log_sigmoid_scores"]


def log_sigmoid_scores(
    scores: Tensor, mask: Optional[Tensor] = None, temperature: float = 1.0, center: str = "none"
) -> Tensor:
    r"""Compute :math:`\log \sigma(s / \tau)`, whose softmax over the instances is the normalized sigmoid of scores s.

    .. math:: a_{nh} = \frac{m_n \sigma(s_{nh} / \tau)}{\sum_k m_k \sigma(s_{kh} / \tau)}

    All computation is in log space and float32 (float64 stays float64), so that a row of very low scores sums to one
    too. If high scores are at least :math:`t` and low scores at most :math:`-t`, the weights of two of h high scores
    differ by a factor of at most :math:`1 + e^{-t}`, and a low score gets at most :math:`e^{-t} / h`. Unlike a softmax,
    the result depends on a shift of all scores: far below zero it is a softmax, far above zero it is uniform.

    Args:
        scores: scores (B, N, H), H per instance.
        mask: mask (B, N), True for a valid instance; ``None`` if all are valid.
        temperature: temperature :math:`\tau`.
        center: ``"mean"`` first subtracts the mean over the valid instances from each row of scores, ``"none"`` does
            not.

    Returns:
        Logarithms (B, N, H) in float32 or float64; meaningless at padding, where :py:func:`masked_softmax` ignores
        them.

    Raises:
        ValueError: when ``temperature`` is not positive and finite, or ``center`` is unknown.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> scores = torch.tensor([[[9.0], [5.0], [-5.0]]])
        >>> [round(a, 3) for a in log_sigmoid_scores(scores).softmax(1).flatten().tolist()]
        [0.5, 0.497, 0.003]
    """
    check_positive_number(temperature=temperature)
    check_choice("center", center, ("none", "mean"))
    scores = zero_out_padding(scores.to(torch.promote_types(scores.dtype, torch.float32)), mask)
    if center == "mean":
        weights = torch.ones_like(scores[..., 0]) if mask is None else mask.to(scores.dtype)
        scores = scores - scores.sum(1, keepdim=True) / weights.sum(1).clamp(min=1).view(-1, 1, 1)
    return torch.nn.functional.logsigmoid(scores if temperature == 1 else scores / temperature)
