"""Dropout from few random bits."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .eager import is_eager_on_host

__all__ = ["BitDropout"]

LEVELS = 2**16


class BitDropout(nn.Dropout):
    r"""Dropout that draws 16 random bits for each value on a CPU, where drawing takes most of its time.

    .. math:: y = \frac{m \odot x}{1 - r}, \quad m \sim \operatorname{Bernoulli}(1 - r), \quad r = \frac{k}{2^{16}}

    where k is the integer nearest to :math:`2^{16} p`, so that r differs from the rate p by at most
    :math:`2^{-17}`, and the expectation of y is x, since r is also the rate of the denominator. Seeds of
    ``torch.manual_seed`` repeat it, but the values differ from those of :py:class:`torch.nn.Dropout`, which is used on
    devices and in exported, compiled and scripted programs.

    Args:
        p: dropout rate.

    Example:
        >>> BitDropout(0.5).eval()(torch.ones(3)).tolist()
        [1.0, 1.0, 1.0]
        >>> set(BitDropout(0.75)(torch.ones(1000)).tolist()) == {0.0, 4.0}
        True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of a tensor of any shape in training; return it as it is in evaluation."""
        if self.training and not torch.jit.is_scripting():
            level = round(self.p * LEVELS)
            if 0 < level < LEVELS and is_eager_on_host(x):
                return (x * _kept(x, level)).mul_(LEVELS / (LEVELS - level))
        return functional.dropout(x, self.p, self.training)


def _kept(x: Tensor, level: int) -> Tensor:
    """Draw the values to keep, of the shape of ``x``, each with the chance 1 - ``level`` / 65,536."""
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits are random
    return (words.view(torch.int16)[: x.numel()] >= level - LEVELS // 2).view(x.shape)
