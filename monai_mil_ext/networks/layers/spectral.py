"""Linear layer with spectral norm 1."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .masked import attention_pool

__all__ = ["SpectralLinear", "spectral_norm_of"]


class SpectralLinear(nn.Linear):
    r"""Linear layer whose weight is divided by its largest singular value: :math:`y = (W / \sigma(W)) x + b`.

    PyTorch's parametrization keeps a running estimate of that value, so that two equal calls in training give different
    results; here it is computed from the weight alone.

    Example:
        >>> layer = SpectralLinear(1, 1, bias=False)
        >>> layer(torch.ones(1, 1)).abs()
        tensor([[1.]], grad_fn=<AbsBackward0>)
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the parameter name of nn.Linear)
        """Map values (..., in) to (..., out)."""
        norm = spectral_norm_of(self.weight).clamp(min=1e-12)
        return functional.linear(input, (self.weight / norm).to(self.weight.dtype), self.bias)


def spectral_norm_of(weight: Tensor) -> Tensor:
    r"""Compute the largest singular value of a matrix by products only, which every exporter and device supports.

    .. math:: \sigma^2 = \langle G, P \rangle, \quad P = \frac{G^{4096}}{\operatorname{tr} G^{4096}}, \quad G = W W^\top

    P approximates the projection on the leading singular vector. It is held constant in the gradient, which then is
    :math:`u v^\top`, the gradient of :math:`\sigma`. The relative error is at most 5e-5, reached when the two largest
    singular values are nearly equal.

    Example:
        >>> round(spectral_norm_of(torch.tensor([[3.0, 0], [0, 2]])).item(), 4)
        3.0
    """
    w = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if w.shape[0] > w.shape[1]:
        w = w.t()
    power = _gram(w.detach())
    power = power / power.diagonal().sum().clamp(min=1e-30)
    # a single row needs no power; inductor would inline its scalar products into one another, 4 to the 12th
    for _ in range(12 if w.shape[0] > 1 else 0):
        power = _gram(power)
        power = power / power.diagonal().sum().clamp(min=1e-30)
    return (_gram(w) * power).sum().sqrt()


def _gram(w: Tensor) -> Tensor:
    """Return W times its transpose (the square of a symmetric W) in the dtype of W, also under autocast."""
    return attention_pool(w.t().unsqueeze(0), w.t().unsqueeze(0))[0]
