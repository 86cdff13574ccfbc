"""Reductions over the instances of a bag that leave padding out."""

from typing import Optional

import torch
from torch import Tensor

__all__ = ["bag_pool", "masked_log_softmax", "masked_softmax", "zero_padding"]


def masked_softmax(scores: Tensor, mask: Optional[Tensor]) -> Tensor:
    r"""Softmax over the instances of each bag; padding gets exactly zero.

    .. math:: a_{nh} = \frac{m_n \exp s_{nh}}{\sum_k m_k \exp s_{kh}}

    It is computed in float32 (float64 stays float64), under autocast too: the weights of a large bag are below what
    bfloat16 can tell apart. What stands at padding, NaN and infinity included, reaches neither values nor gradients.

    Args:
        scores: (B, N, H), H scores an instance.
        mask: (B, N), True for a real instance; ``None`` if all are real.

    Returns:
        (B, N, H) in float32 or float64, summing to one over N; all zero for a bag with no real instance.

    Example:
        >>> import torch
        >>> masked_softmax(torch.zeros(1, 3, 1), torch.tensor([[True, True, False]])).flatten().tolist()
        [0.5, 0.5, 0.0]
    """
    dtype = torch.promote_types(scores.dtype, torch.float32)
    if mask is None:
        return torch.softmax(scores, 1, dtype=dtype)
    return torch.softmax(_sunk(scores.to(dtype), mask), 1).masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_log_softmax(scores: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Logarithm of :py:func:`masked_softmax`, exact where that is too small for its type; zero at padding."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    if mask is None:
        return torch.log_softmax(scores, 1, dtype=dtype)
    return torch.log_softmax(_sunk(scores.to(dtype), mask), 1).masked_fill(~mask.unsqueeze(-1), 0.0)


def _sunk(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with minus infinity at padding; zeros in an empty bag, whose softmax and its gradient thus stay finite."""
    real = mask.unsqueeze(-1)
    floor = torch.where(real.any(1, keepdim=True), float("-inf"), 0.0).to(scores.dtype)
    return torch.where(real, scores, floor)


def zero_padding(x: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Instances (B, N, F) with zeros at padding, whatever stood there; ``x`` itself when there is no mask.

    Zeros have to enter a network before its first weight: in the weight's gradient NaN times zero is NaN.
    """
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)


def bag_pool(attention: Tensor, h: Tensor) -> Tensor:
    r"""Weighted sums (B, H, E) of instances ``h`` (B, N, E), one for each of H rows of ``attention`` (B, N, H).

    .. math:: z_h = \sum_n a_{nh} h_n

    It is computed in float32 (float64 stays float64), under autocast too. ``h`` must be finite at padding.
    """
    weights = attention.transpose(1, 2)
    if torch.jit.is_scripting():  # TorchScript cannot compile the question below
        return _bmm(weights, h)
    if torch.is_autocast_enabled(h.device.type):
        with torch.autocast(h.device.type, enabled=False):
            return _bmm(weights, h)
    return _bmm(weights, h)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """Batched product in the wider of both types, and no narrower than float32."""
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return torch.bmm(a.to(dtype), b.to(dtype))
