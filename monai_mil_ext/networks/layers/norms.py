"""Normalization layers that compute in float32 or float64, whatever the dtype of their input."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.utils import check_choice, check_positive

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
        return functional.rms_norm(wide, [self.size], self.weight.to(wide.dtype), self.epsilon).to(x.dtype)


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
