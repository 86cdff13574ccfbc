"""Metrics of the change of attention between epochs and of its uniformity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["attention_changes", "attention_divergence", "attention_instability", "attention_uniformity"]


def attention_divergence(attention: Tensor, other: Tensor) -> Tensor:
    r"""Compute the Jensen-Shannon divergence between two attention tensors of the same bags.

    .. math:: \frac12 \sum_n \Big(p_n \log\frac{p_n}{m_n} + q_n \log\frac{q_n}{m_n}\Big), \quad m = \frac{p + q}{2}

    with p and q clamped to at least :math:`10^{-8}`. It ranges from 0 for equal attention to :math:`\log 2` for
    attention on disjoint instances. A low divergence alone means little: uniform attention does not change either.

    Args:
        attention: attention weights (B, N, H).
        other: other attention weights (B, N, H).

    Returns:
        Divergence (B, H) in nats.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> a = torch.tensor([[[1.0], [0.0]]])
        >>> [round(attention_divergence(a, b).item(), 4) for b in (a, a.flip(1))]
        [0.0, 0.6931]
    """
    if attention.shape != other.shape:
        raise ValueError(f"`other` must have shape {tuple(attention.shape)}, got {tuple(other.shape)}.")
    pair = torch.stack([attention, other])
    pair = pair.to(torch.promote_types(pair.dtype, torch.float32)).clamp(min=1e-8)
    divergence = (pair * (pair / pair.mean(dim=0)).log()).sum(dim=(0, 2)) / 2
    return divergence.clamp(min=0)  # rounding may give less for attention that is nearly the same


def attention_uniformity(attention: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Compute the normalized entropy of attention, which is 1 for uniform attention.

    .. math:: -\frac{1}{\log N} \sum_n a_n \log a_n

    Args:
        attention: attention weights (B, N, H).
        mask: mask (B, N), True for valid instances.

    Returns:
        Normalized entropy (B, H); NaN for bags with fewer than two valid instances.

    Example:
        >>> attention_uniformity(torch.tensor([[[0.25], [0.25], [0.25], [0.25]]])).item()
        1.0
    """
    a = attention.to(torch.promote_types(attention.dtype, torch.float32))
    if mask is None:
        return torch.special.entr(a).sum(dim=1) / (math.log(a.shape[1]) if a.shape[1] > 1 else math.nan)
    valid = mask.unsqueeze(-1).to(a.dtype)
    count = valid.sum(dim=1)
    return torch.special.entr(a * valid).sum(dim=1) / torch.where(count > 1, count, torch.nan).log()


def attention_changes(
    attention: Mapping[str, Tensor], previous: Mapping[str, Tensor] | None = None
) -> dict[str, dict[str, float]]:
    """Compare the attention (N,) of every bag, by name, with its attention in the previous epoch.

    Returns:
        For each bag, sorted by name, ``jsd`` (:py:func:`attention_divergence`, NaN without a previous epoch) and
        ``uniformity`` (:py:func:`attention_uniformity`).

    Raises:
        ValueError: if the bags or their sizes differ.

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
        current, last = (a.view(1, -1, 1) for a in (attention[name], before[name]))
        jsd = math.nan if previous is None else float(attention_divergence(current, last))
        changes[name] = {"jsd": jsd, "uniformity": float(attention_uniformity(current))}
    return changes


def attention_instability(divergence: Tensor) -> dict[str, float]:
    r"""Summarize divergences (T, B) between the epochs of a training run, averaging each bag over time first.

    Returns:
        ``jsd``: mean over bags; ``jsd_sd``: sample standard deviation over bags, NaN for one bag; ``jsd_share``: mean
        divided by :math:`\log 2`, its maximum. All are NaN without epochs.

    Example:
        >>> values = attention_instability(torch.tensor([[0.1, 0.3], [0.3, 0.5]]))
        >>> {name: round(value, 3) for name, value in values.items()}
        {'jsd': 0.3, 'jsd_sd': 0.141, 'jsd_share': 0.433}
    """
    bags = divergence.double().mean(dim=0)
    deviation = float(bags.std()) if len(bags) > 1 else math.nan
    return {"jsd": float(bags.mean()), "jsd_sd": deviation, "jsd_share": float(bags.mean()) / math.log(2)}
