"""Softmax and pooling over the instances of a bag, without padding."""

from typing import Optional

import torch
from torch import Tensor

__all__ = ["bag_pool", "masked_log_softmax", "masked_softmax", "zero_padding"]


def masked_softmax(scores: Tensor, mask: Optional[Tensor]) -> Tensor:
    r"""Compute the softmax over the instances of each bag; padding gets exactly zero.

    .. math:: a_{nh} = \frac{m_n \exp s_{nh}}{\sum_k m_k \exp s_{kh}}

    All computation is in float32 (float64 stays float64), also under autocast, since bfloat16 cannot resolve the small
    weights of a large bag. Values at padding, including NaN and infinity, affect neither the result nor gradients.

    Args:
        scores: scores (B, N, H), H per instance.
        mask: mask (B, N), True for a valid instance; ``None`` if all are valid.

    Returns:
        Weights (B, N, H) in float32 or float64, summing to one over N; all zero for a bag without valid instances.

    Example:
        >>> import torch
        >>> masked_softmax(torch.zeros(1, 3, 1), torch.tensor([[True, True, False]])).flatten().tolist()
        [0.5, 0.5, 0.0]
    """
    dtype = torch.promote_types(scores.dtype, torch.float32)
    if mask is None:
        return torch.softmax(scores, 1, dtype=dtype)
    return torch.softmax(_mask_scores(scores.to(dtype), mask), 1).masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_log_softmax(scores: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Compute the logarithm of :py:func:`masked_softmax`, without its underflow; zero at padding."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    if mask is None:
        return torch.log_softmax(scores, 1, dtype=dtype)
    return torch.log_softmax(_mask_scores(scores.to(dtype), mask), 1).masked_fill(~mask.unsqueeze(-1), 0.0)


def _mask_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Fill padding with minus infinity, or with zero in an empty bag, so that softmax and gradient stay finite."""
    mask = mask.unsqueeze(-1)
    fill = torch.where(mask.any(1, keepdim=True), float("-inf"), 0.0).to(scores.dtype)
    return torch.where(mask, scores, fill)


def zero_padding(x: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Replace the padding of instances (B, N, F) by zeros; without a mask, return ``x`` itself.

    A network has to do so before its first weight: in the gradient of the weight, NaN times zero is NaN.
    """
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)


def bag_pool(attention: Tensor, h: Tensor) -> Tensor:
    r"""Compute the attention-weighted sums (B, H, E) of instances ``h`` (B, N, E) for ``attention`` (B, N, H).

    .. math:: z_h = \sum_n a_{nh} h_n

    All computation is in float32 (float64 stays float64), also under autocast. ``h`` must be finite at padding.
    """
    weights = attention.transpose(1, 2)
    if torch.jit.is_scripting():  # TorchScript cannot compile is_autocast_enabled
        return _bmm(weights, h)
    if torch.is_autocast_enabled(h.device.type):
        with torch.autocast(h.device.type, enabled=False):
            return _bmm(weights, h)
    return _bmm(weights, h)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """Compute a batched matrix product in the wider dtype of both, and at least in float32."""
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return torch.bmm(a.to(dtype), b.to(dtype))
