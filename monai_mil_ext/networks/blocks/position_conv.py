"""Convolutional position encoding of tokens on a grid."""

from typing import Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.utils import check_positive

__all__ = ["PositionConv"]


class PositionConv(nn.Module):
    r"""Position encoding that adds depthwise convolutions of several kernel sizes to a grid of tokens (PPEG).

    .. math:: y' = y + \sum_k (w_k * y + b_k)

    with zeros beyond the grid. It is computed as one convolution with the sum of the kernels. A sequence is a grid with
    one row.

    Args:
        size: size E of a token.
        kernels: odd height and odd width of each kernel.

    Raises:
        ValueError: when ``size`` is not positive or a kernel is not odd.

    References:
        Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image
        Classification", arXiv:2106.00908.

    Example:
        >>> PositionConv(8, [(3, 3), (5, 5)])(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, size: int, kernels: Sequence[Tuple[int, int]]) -> None:
        super().__init__()
        check_positive(size=size)
        if any(height % 2 == 0 or width % 2 == 0 for height, width in kernels):
            raise ValueError(f"`kernels` must be of odd height and width, got {list(kernels)}.")
        self.size = size
        self.height = max(height for height, _ in kernels)
        self.width = max(width for _, width in kernels)
        self.kernels = nn.ModuleList([_Kernel(size, height, width) for height, width in kernels])

    def forward(self, y: Tensor) -> Tensor:
        """Add the convolutions to grids (B, E, rows, columns) of at least one row and column."""
        weight = torch.zeros([self.size, 1, self.height, self.width], dtype=y.dtype, device=y.device)
        bias = torch.zeros([self.size], dtype=y.dtype, device=y.device)
        for kernel in self.kernels:
            kernel_weight, kernel_bias = kernel(self.height, self.width)
            weight, bias = weight + kernel_weight, bias + kernel_bias
        padding = [self.height // 2, self.width // 2]
        return y + functional.conv2d(y, weight, bias, padding=padding, groups=self.size)


class _Kernel(nn.Module):
    """Weight and bias of one depthwise convolution, initialized as in ``nn.Conv2d``."""

    def __init__(self, size: int, height: int, width: int) -> None:
        super().__init__()
        bound = (height * width) ** -0.5
        self.weight = nn.Parameter(torch.empty(size, 1, height, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size).uniform_(-bound, bound))

    def forward(self, height: int, width: int) -> Tuple[Tensor, Tensor]:
        """Return the weight, zero-padded to ``height`` and ``width``, and the bias."""
        rows, columns = (height - self.weight.shape[2]) // 2, (width - self.weight.shape[3]) // 2
        return functional.pad(self.weight, [columns, columns, rows, rows]), self.bias
