"""Normalization layers that compute in float32 or float64, whatever the dtype of their input."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.utils import check_choice, check_positive, without_autocast

from .eager import is_eager_on_host

__all__ = ["LayerNormFp32", "RMSNormFp32", "make_norm"]


class RMSNormFp32(nn.RMSNorm):
    r"""RMS normalization computed in float32 (float64 stays float64); the result has the dtype of ``x``.

    .. math:: y = \frac{x}{\sqrt{\operatorname{mean}(x^2) + \epsilon}} \odot w

    Args:
        size: number of features.
        eps: value added to the mean square.
        round_first: whether to convert back to the dtype of ``x`` before multiplying by the weight, as the published
            code of QG-MIL does; the result then has the promoted dtype of ``x`` and weight. It makes no difference
            unless ``x`` has half precision.

    Raises:
        ValueError: when the size is not positive.

    References:
        Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467.

    Example:
        >>> RMSNormFp32(2)(torch.tensor([3.0, 4.0])).square().mean().round(decimals=4).item()
        1.0
    """

    def __init__(self, size: int, eps: float = 1e-6, round_first: bool = False) -> None:
        check_positive(size=size)
        super().__init__(size, eps)
        self.size = size
        self.epsilon = eps
        self.round_first = round_first

    def forward(self, x: Tensor) -> Tensor:
        """Normalize features (..., size)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.round_first:
            return functional.rms_norm(wide, [self.size], None, self.epsilon).to(x.dtype) * self.weight
        weight = self.weight.to(wide.dtype)
        if not torch.jit.is_scripting():
            is_eager = is_eager_on_host(wide) and is_eager_on_host(weight)
            if is_eager:
                normalized: Tensor = _RMSNorm.apply(wide, weight, self.epsilon)
                return normalized.to(x.dtype)
        return functional.rms_norm(wide, [self.size], weight, self.epsilon).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    r"""RMS normalization on a CPU, where torch has no kernel for it and computes it and its gradient in many steps.

    With the scale :math:`s = (\operatorname{mean}(x^2) + \epsilon)^{-1/2}` and the gradient g of the output,

    .. math::
        \frac{\partial L}{\partial x} = s \left(g \odot w - x s^2 \operatorname{mean}(g \odot w \odot x)\right), \quad
        \frac{\partial L}{\partial w} = \sum_n s_n \, g_n \odot x_n

    This is the gradient of layer normalization for a mean of zero, for which torch has a kernel, plus
    :math:`s \operatorname{mean}(g \odot w)`, which layer normalization subtracts.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, scale)
        ctx.eps = eps
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor], None]:
        x, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            normalized, weighted = x * _inverse_rms(x, ctx.eps), gradient * weight
            centered = weighted - normalized * (weighted * normalized).mean(-1, keepdim=True)
            return _inverse_rms(x, ctx.eps) * centered, (gradient * normalized).sum_to_size(weight.shape), None
        needed = [*ctx.needs_input_grad[:2], False]
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, weight.shape, torch.zeros_like(scale), scale, weight, None, needed
        )
        if needed[0]:
            with without_autocast(x):
                of_x.add_((gradient @ weight).div_(len(weight)).unsqueeze(-1).mul_(scale))
        return of_x, of_weight, None


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """Compute the inverse root of the mean square (..., 1) of features (..., E)."""
    return (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()


class LayerNormFp32(nn.LayerNorm):
    r"""Layer normalization computed in float32 (float64 stays float64); the result has the dtype of ``x``.

    .. math:: y = \frac{x - \operatorname{mean}(x)}{\sqrt{\operatorname{var}(x) + \epsilon}} \odot w + b

    Args:
        size: number of features.
        eps: value added to the variance.

    Raises:
        ValueError: when the size is not positive.

    Example:
        >>> LayerNormFp32(2)(torch.tensor([3.0, 4.0]).bfloat16()).tolist()
        [-1.0, 1.0]
    """

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        check_positive(size=size)
        super().__init__(size, eps)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Normalize features (..., size)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return functional.layer_norm(wide, [self.size], weight, bias, self.eps).to(x.dtype)


def make_norm(kind: str, size: int, eps: float = 1e-6, round_first: bool = False) -> nn.Module:
    """Create the normalization layer ``kind``: ``"rms"`` or ``"layer"``; ``round_first`` affects only ``"rms"``.

    Raises:
        ValueError: when ``kind`` is unknown or the size is not positive.
    """
    check_choice("kind", kind, ("rms", "layer"))
    return RMSNormFp32(size, eps, round_first) if kind == "rms" else LayerNormFp32(size, eps)
