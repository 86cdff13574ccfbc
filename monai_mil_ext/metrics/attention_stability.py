"""How far attention moves, and how near it is to looking at everything alike."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["attention_changes", "attention_divergence", "attention_instability", "attention_uniformity"]


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


def attention_changes(
    attention: Mapping[str, Tensor], previous: Mapping[str, Tensor] | None = None
) -> dict[str, dict[str, float]]:
    """``jsd`` and ``uniformity`` of every bag's attention (N,) by name, against its own attention of an epoch before.

    ``jsd`` is :py:func:`attention_divergence`, NaN without a previous epoch; ``uniformity``
    :py:func:`attention_uniformity`. Bags come in the order of their names.

    Raises:
        ValueError: when the two are not of the same bags and sizes.

    Example:
        >>> epochs = [{"a": torch.tensor([0.5, 0.5])}, {"a": torch.tensor([1.0, 0.0])}]
        >>> round(attention_changes(epochs[1], epochs[0])["a"]["jsd"], 3), attention_changes(epochs[0])
        (0.216, {'a': {'jsd': nan, 'uniformity': 1.0}})
    """
    before = attention if previous is None else previous
    if other := sorted(attention.keys() ^ before.keys()):
        raise ValueError(f"`attention` must be of the bags of the previous epoch, got {', '.join(other)} in one only.")
    for name, a in attention.items():
        if a.shape != before[name].shape:
            rule = f"have shape {tuple(before[name].shape)} as in the previous epoch"
            raise ValueError(f"`attention` of bag {name!r} must {rule}, got {tuple(a.shape)}.")
    changes = {}
    for name in sorted(attention):
        now, last = (a.view(1, -1, 1) for a in (attention[name], before[name]))
        jsd = math.nan if previous is None else float(attention_divergence(now, last))
        changes[name] = {"jsd": jsd, "uniformity": float(attention_uniformity(now))}
    return changes


def attention_instability(divergence: Tensor) -> dict[str, float]:
    r"""Summary of divergences (T, B) between the epochs of a training, each bag averaged over time before all else.

    ``jsd`` is the mean over bags, ``jsd_sd`` their sample standard deviation, ``jsd_share`` the mean over
    :math:`\log 2`, the largest there is. What can't be had, of no epoch or the deviation of one bag, is NaN.

    Example:
        >>> values = attention_instability(torch.tensor([[0.1, 0.3], [0.3, 0.5]]))
        >>> {name: round(value, 3) for name, value in values.items()}
        {'jsd': 0.3, 'jsd_sd': 0.141, 'jsd_share': 0.433}
    """
    bags = divergence.double().mean(dim=0)
    deviation = float(bags.std()) if len(bags) > 1 else math.nan
    return {"jsd": float(bags.mean()), "jsd_sd": deviation, "jsd_share": float(bags.mean()) / math.log(2)}
