"""Evidence of a run of neighbouring instances, added up over every place where the run may lie."""

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import masked_softmax, pack, packed_places, unpack, zero_padding
from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["WindowMIL"]


class WindowMIL(BagNet):
    r"""Asks of every window of a bag whether it holds what the label is about, and adds up the odds.

    .. math::
        s_n = w^\top x_n + v, \quad k(t) = A \, \sigma\left(\frac{\omega - |t|}{\tau}\right), \quad
        W_j = \sum_n k(n - j) s_n + \log \sigma\left(\frac{\min(j - 1, N - j) - \omega + 1/2}{\tau}\right)

        \text{logit} = \log \frac{1}{N} \sum_j e^{W_j} + b, \quad
        a_n \propto \sum_j \operatorname{softmax}(W)_j \, k(n - j)

    for each class on its own, so that one logit serves a binary label. The linear layer is the evidence of an
    instance, the box adds up that of a window of some :math:`2\omega` instances around j, and the last term keeps
    windows within the bag. Width and height of the box are learned. The height is free so that a penalty on :math:`w`
    (:py:class:`~monai_mil_ext.handlers.ProximalL1Handler`) chooses features without weakening the evidence; the
    softness :math:`\tau` of the edge is fixed, or the edge would sharpen until the width has no gradient.

    Where the label means one run of shifted normal instances this is Bayes' rule with learned parameters. Scores are
    the evidence W of the windows; attention is the posterior of an instance to lie in the window, made to sum to one.
    The order of instances is what it looks at (``permutation_invariant`` is False). The weights start at zero.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits, each with its own evidence and window.
        half_width: :math:`\omega` at the start.
        softness: :math:`\tau`.
        reach: distance from the middle of a window beyond which nothing counts.

    Raises:
        ValueError: when a size is not positive, width or softness not positive, the width beyond the reach, or the
            input has the wrong shape.

    References:
        Of this package; the estimators that it learns are those of arXiv:2510.25759 for a run of shifted means.

    Example:
        >>> net = WindowMIL(in_features=2, num_classes=1, half_width=1.0)
        >>> _ = net.evidence.weight.data.copy_(torch.tensor([[4.0, 0.0]]))
        >>> bag = torch.tensor([[0.0, 5.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
        >>> net.forward_bag(bag.unsqueeze(0)).attention.flatten().argmax().item()
        3
    """

    permutation_invariant = False

    def __init__(
        self, in_features: int, num_classes: int, half_width: float = 5.0, softness: float = 0.7, reach: int = 30
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, reach=reach)
        if not 0 < half_width <= reach:
            raise ValueError(f"`half_width` must be in (0, {reach}], got {half_width!r}.")
        if not (math.isfinite(softness) and softness > 0):
            raise ValueError(f"`softness` must be positive and finite, got {softness!r}.")
        self.in_features = in_features
        self.softness = softness
        self.reach = reach
        self.evidence = nn.Linear(in_features, num_classes)
        nn.init.zeros_(self.evidence.weight)
        nn.init.zeros_(self.evidence.bias)
        self.raw_height = nn.Parameter(torch.zeros(num_classes))
        self.log_half_width = nn.Parameter(torch.full([num_classes], math.log(half_width)))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """See :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h = zero_padding(self.evidence(zero_padding(x, mask)), mask)
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask
        # one more slot, of padding: an empty bag of no slot at all has no window to slide
        h, real = functional.pad(h, [0, 0, 0, 1]), functional.pad(real, [0, 1])
        places = packed_places(real)
        dtype = torch.promote_types(h.dtype, torch.float32)
        box = self._box().to(dtype)
        height = functional.softplus(self.raw_height).to(dtype)
        windows = height * self._slide(pack(h, places).to(dtype), box)
        windows = windows + self._within(real.sum(1), h.shape[1]).to(dtype)
        windows = zero_padding(unpack(windows, places), real)
        mass = self._slide(pack(masked_softmax(windows, real), places), box)
        mass = zero_padding(unpack(mass, places), real)
        attention = mass / mass.sum(1, keepdim=True).clamp(min=1e-6)  # at least 1/2, or an empty bag's 0
        logits = _log_mean_exp(windows, real) + self.bias
        scores = self.score_tap(windows[:, :-1])
        return BagOutput(logits.to(self.bias.dtype), attention[:, :-1], scores, None)

    def _slide(self, values: Tensor, box: Tensor) -> Tensor:
        """The sum (B, N, C) of ``values`` (B, N, C) in the box around each place, not in half precision."""
        if torch.jit.is_scripting():  # TorchScript cannot compile the question below
            return _convolve(values, box)
        if torch.is_autocast_enabled(values.device.type):
            with torch.autocast(values.device.type, enabled=False):
                return _convolve(values, box)
        return _convolve(values, box)

    def _box(self) -> Tensor:
        """Each class's box (C, 2 reach + 1), of height one."""
        offset = torch.arange(-self.reach, self.reach + 1, device=self.bias.device).abs()
        return torch.sigmoid((self.log_half_width.exp().unsqueeze(1) - offset) / self.softness)

    def _within(self, count: Tensor, slots: int) -> Tensor:
        """Logarithm (B, N, C) of how far the window around each of ``slots`` places lies within ``count`` instances."""
        place = torch.arange(slots, device=count.device).unsqueeze(0)
        from_end = torch.minimum(place, count.unsqueeze(1) - 1 - place).unsqueeze(2)
        return functional.logsigmoid((from_end - self.log_half_width.exp() + 0.5) / self.softness)


def _convolve(values: Tensor, kernel: Tensor) -> Tensor:
    """Each class's values (B, N, C) with its symmetric kernel (C, K)."""
    reach = kernel.shape[1] // 2
    rows = values.transpose(1, 2)
    return functional.conv1d(rows, kernel.unsqueeze(1), padding=reach, groups=kernel.shape[0]).transpose(1, 2)


def _log_mean_exp(values: Tensor, mask: Tensor) -> Tensor:
    """Logarithm (B, C) of the mean of exp over the real ones of ``values`` (B, N, C); zero where there are none."""
    count, some = mask.sum(1, keepdim=True), mask.any(1, keepdim=True)
    kept = torch.where(mask | ~some, 0.0, float("-inf")).to(values.dtype)
    total = torch.logsumexp(values + kept.unsqueeze(2), 1)
    slots = torch.where(some, count, mask.shape[1]).to(values.dtype)  # an empty bag's are all zero
    return total - slots.log()
