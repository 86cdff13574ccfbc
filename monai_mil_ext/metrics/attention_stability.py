"""How far attention moves, and how near it is to looking at everything alike."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_divergence", "attention_uniformity"]


def attention_divergence(attention: Tensor, other: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence (B, H), in nats, of attention (B, N, H) from other attention on the same bags.

    .. math:: \frac12 \sum_n \Big(p_n \log\frac{p_n}{m_n} + q_n \log\frac{q_n}{m_n}\Big), \quad m = \frac{p + q}{2}

    with p and q raised to :math:`10^{-8}` where they are below it. From 0, when nothing moved, to :math:`\log 2`, when
    no instance is looked at twice. A low one says little by itself: attention that stays uniform does not move either.

    Raises:
        ValueError: when the shapes differ.

    Example:
        >>> a = torch.tensor([[[1.0], [0.0]]])
        >>> [round(attention_divergence(a, b).item(), 4) for b in (a, a.flip(1))]
        [0.0, 0.6931]
    """
    if attention.shape != other.shape:
        raise ValueError(f"`other` must have shape {tuple(attention.shape)}, got {tuple(other.shape)}.")
    p, q = (a.to(torch.promote_types(a.dtype, torch.float32)).clamp(min=1e-8) for a in (attention, other))
    middle = (p + q) / 2
    return (p * (p / middle).log() + q * (q / middle).log()).sum(dim=1) / 2


def attention_uniformity(attention: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Entropy of attention (B, N, H) as a share (B, H) of the largest there is: 1 when every instance gets the same.

    .. math:: -\frac{1}{\log N} \sum_n a_n \log a_n

    NaN for a bag of fewer than two real instances, on which attention has nothing to choose.

    Example:
        >>> attention_uniformity(torch.tensor([[[0.25], [0.25], [0.25], [0.25]]])).item()
        1.0
    """
    a = attention.to(torch.promote_types(attention.dtype, torch.float32))
    real = torch.ones_like(a[..., :1]) if mask is None else mask.unsqueeze(-1).to(a.dtype)
    count = real.sum(dim=1)
    return torch.special.entr(a * real).sum(dim=1) / torch.where(count > 1, count, torch.nan).log()
