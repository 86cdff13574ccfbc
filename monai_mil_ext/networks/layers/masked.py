"""Masked operations on padded bags, in which padding has no effect."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional

from monai_mil_ext.utils import without_autocast

from .eager import is_eager_on_host

__all__ = [
    "attention_pool",
    "masked_log_softmax",
    "masked_max",
    "masked_softmax",
    "zero_out_padding",
]


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
        weights = torch.softmax(scores, 1, dtype=dtype)
        total = weights.sum(1, keepdim=True)
    else:
        weights = torch.softmax(_mask_scores(scores.to(dtype), mask), 1)
        not_empty = mask.unsqueeze(-1).any(1, keepdim=True)
        total = torch.where(not_empty, weights.sum(1, keepdim=True), float("inf"))
    # the kernel of softmax adds the N terms one by one, with an error of a percent for millions of instances; the sum
    # of its result is exact, and dividing by it removes that error from values and gradients
    return weights / total if torch.is_grad_enabled() else weights.div_(total)


def masked_log_softmax(scores: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Compute the logarithm of :py:func:`masked_softmax`, without its underflow; zero at padding."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    logs = torch.log_softmax(scores if mask is None else _mask_scores(scores.to(dtype), mask), 1, dtype=dtype)
    logs = logs - logs.logsumexp(1, keepdim=True)  # against the error of a sum one by one, as above
    return logs if mask is None else logs.masked_fill(~mask.unsqueeze(-1), 0.0)


def _mask_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Fill padding with minus infinity, or with zero in an empty bag, so that softmax and gradient stay finite."""
    mask = mask.unsqueeze(-1)
    fill = torch.where(mask.any(1, keepdim=True), float("-inf"), 0.0).to(scores.dtype)
    return torch.where(mask, scores, fill)


def zero_out_padding(x: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Replace the padding of instances (B, N, F) by zeros; without a mask, return ``x`` itself.

    A network has to do so before its first weight: in the gradient of the weight, NaN times zero is NaN. On a CPU,
    ``x`` itself is returned also if its padding is zero already, since reading it takes a tenth of the time of a copy.
    """
    if mask is None:
        return x
    if not torch.jit.is_scripting():
        is_zero = _has_zero_padding(x, mask)
        if is_zero:
            return x
    return x.masked_fill(~mask.unsqueeze(-1), 0.0)


def _has_zero_padding(x: Tensor, mask: Tensor) -> bool:
    """Return whether all padding is known to be zero; False where a program cannot look, and if it needs gradients."""
    if (x.requires_grad and torch.is_grad_enabled()) or not is_eager_on_host(x):
        return False
    try:
        return not ((x.amax(-1) != 0) | (x.amin(-1) != 0)).logical_and_(~mask).any()
    except RuntimeError:  # a tensor without values, of FakeTensorMode
        return False


def attention_pool(attention: Tensor, h: Tensor) -> Tensor:
    r"""Compute the attention-weighted sums (B, H, E) of instances ``h`` (B, N, E) for ``attention`` (B, N, H).

    .. math:: z_h = \sum_n a_{nh} h_n

    All computation is in float32 (float64 stays float64), also under autocast. ``h`` must be finite at padding. Bags of
    more than 16,384 instances are summed in parts, since a matrix product adds them one by one, which is wrong by a
    percent for millions; exported and compiled programs sum them at once.
    """
    weights = attention.transpose(1, 2)
    if torch.jit.is_scripting():  # TorchScript cannot compile is_autocast_enabled
        return _bmm_in_parts(weights, h)
    with without_autocast(h):
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # a branch on N would fix it
            return _bmm(weights, h)
        return _bmm_in_parts(weights, h)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """Compute a batched matrix product in the wider dtype of both, and at least in float32."""
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return torch.bmm(a.to(dtype), b.to(dtype))


def _bmm_in_parts(a: Tensor, b: Tensor, limit: int = 16384, size: int = 4096) -> Tensor:
    """Compute a batched matrix product; for more than ``limit`` rows of ``b``, as the sum of products of parts."""
    if b.shape[1] <= limit:
        return _bmm(a, b)
    products: List[Tensor] = []
    b_parts = b.split(size, 1)
    for i, part in enumerate(a.split(size, 2)):
        products.append(_bmm(part, b_parts[i]))
    return torch.stack(products).sum(0)


def masked_max(h: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    r"""Return the maximum of each feature over the valid instances, and the fraction of maxima of each instance.

    .. math:: z_e = \max_n h_{ne}, \quad a_n = \frac{1}{E} \sum_e [n = \operatorname{argmax}_k h_{ke}]

    The first of equal instances counts. Values at padding affect neither the result nor gradients.

    Args:
        h: instances (B, N, E).
        mask: mask (B, N), True for a valid instance; ``None`` if all are valid.

    Returns:
        Maxima (B, E) in the dtype of ``h``, and fractions (B, N, 1) in float32 or float64, which sum to one over N.
        Both are zero for a bag without valid instances.

    Example:
        >>> import torch
        >>> values, fraction = masked_max(torch.tensor([[[1.0, 5.0], [2.0, 3.0], [9.0, 9.0]]]),
        ...                               torch.tensor([[True, True, False]]))
        >>> values.tolist(), fraction.flatten().tolist()
        ([[2.0, 5.0]], [0.5, 0.5, 0.0])
    """
    bags, instances, size = h.shape
    masked = h if mask is None else h.masked_fill(~mask.unsqueeze(-1), float("-inf"))
    # an additional last row of minus infinity: it wins in an empty bag only, where a maximum over nothing would raise
    values, index = functional.pad(masked, [0, 0, 0, 1], value=float("-inf")).max(1)
    not_empty = index < instances if mask is None else mask.any(1, keepdim=True)
    values = torch.where(not_empty, values, torch.zeros_like(values))
    counts = torch.zeros([bags, instances + 1], dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
    ones = torch.where(not_empty, torch.full_like(index, 1, dtype=counts.dtype), 0.0)
    counts = counts.scatter_add(1, index, ones)[:, :instances]
    return values, (counts / size).unsqueeze(-1)
