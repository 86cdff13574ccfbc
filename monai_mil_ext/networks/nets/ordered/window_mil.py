"""WindowMIL, which adds up the evidence of all windows of neighboring instances."""

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_positive, check_positive_number, without_autocast

__all__ = ["WindowMIL"]


class WindowMIL(BagNet):
    r"""WindowMIL, a network of this package for labels that are caused by one run of neighboring instances.

    Given a bag X of ordered instances :math:`x_n`, WindowMIL sums the evidence of the instances in every window of the
    bag and averages the odds of all windows:

    .. math::
        s_n = w^\top x_n + v, \quad k(t) = A \, \sigma\left(\frac{\omega - |t|}{\tau}\right), \quad
        W_j = \sum_n k(n - j) s_n + \log \sigma\left(\frac{\min(j - 1, N - j) - \omega + 1/2}{\tau}\right)

        \text{logit} = \log \frac{1}{N} \sum_j e^{W_j} + b, \quad
        a_n \propto \sum_j \operatorname{softmax}(W)_j \, k(n - j)

    for each class separately, so that a binary label needs one logit. The linear layer gives the evidence of an
    instance, the box k sums it over a window of about :math:`2\omega` instances around j, and the last term keeps
    windows within the bag. The width and the height A of the box are learned. With a free height, a penalty on
    :math:`w` (:py:class:`~monai_mil_ext.handlers.ProximalL1Handler`) selects features without weakening the evidence.
    The softness :math:`\tau` of the edge is fixed, since a learned edge would sharpen until the width has no gradient.

    If the label means one run of normal instances with a shifted mean, this is Bayes' rule with learned parameters.
    Scores are the evidence W of the windows; attention is the posterior probability of an instance to be in the window,
    normalized to sum to one. It depends on the order of instances (``permutation_invariant`` is False). The weights are
    initialized to zero.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits, each with its own evidence and window.
        half_width: initial value of :math:`\omega`.
        softness: softness :math:`\tau` of the edge.
        reach: distance from the center of a window beyond which instances are ignored.

    Raises:
        ValueError: when a size, the width or the softness is not positive, the width is greater than the reach, or the
            input has the wrong shape.

    References:
        Its estimators for a run of shifted means are those of arXiv:2510.25759.

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
        check_positive_number(half_width=half_width)
        if half_width > reach:
            raise ValueError(f"`half_width` must be in (0, {reach}], got {half_width!r}.")
        check_positive_number(softness=softness)
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
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h = zero_out_padding(self.evidence(zero_out_padding(x, mask)), mask)
        if mask is None:
            mask = torch.ones_like(x[..., 0], dtype=torch.bool)
        # one more row of padding, since a convolution needs at least one instance
        h, mask = functional.pad(h, [0, 0, 0, 1]), functional.pad(mask, [0, 1])
        order = compact_order(mask)
        dtype = torch.promote_types(h.dtype, torch.float32)
        box = self._box().to(dtype)
        height = functional.softplus(self.raw_height).to(dtype)
        windows = height * self._window_sums(compact(h, order).to(dtype), box)
        windows = windows + self._log_inside(mask.sum(1), h.shape[1]).to(dtype)
        windows = zero_out_padding(uncompact(windows, order), mask)
        mass = self._window_sums(compact(masked_softmax(windows, mask), order), box)
        mass = zero_out_padding(uncompact(mass, order), mask)
        attention = mass / mass.sum(1, keepdim=True).clamp(min=1e-6)  # the sum is at least 1/2, or 0 in an empty bag
        logits = _log_mean_exp(windows, mask) + self.bias
        scores = self.score_tap(windows[:, :-1])
        return BagOutput(logits.to(self.bias.dtype), attention[:, :-1], scores, None)

    def _window_sums(self, values: Tensor, box: Tensor) -> Tensor:
        """Sum values (B, N, C) in the box around each instance to (B, N, C), in float32 or float64."""
        if torch.jit.is_scripting():  # TorchScript cannot compile is_autocast_enabled
            return _convolve(values, box)
        with without_autocast(values):
            return _convolve(values, box)

    def _box(self) -> Tensor:
        """Compute the box (C, 2 reach + 1) of each class, of height one."""
        offset = torch.arange(-self.reach, self.reach + 1, device=self.bias.device).abs()
        return torch.sigmoid((self.log_half_width.exp().unsqueeze(1) - offset) / self.softness)

    def _log_inside(self, count: Tensor, length: int) -> Tensor:
        """Compute the log-weights (B, N, C) of windows around N = ``length`` indices in bags of ``count`` instances."""
        index = torch.arange(length, device=count.device).unsqueeze(0)
        from_end = torch.minimum(index, count.unsqueeze(1) - 1 - index).unsqueeze(2)
        return functional.logsigmoid((from_end - self.log_half_width.exp() + 0.5) / self.softness)


def _convolve(values: Tensor, kernel: Tensor) -> Tensor:
    """Convolve the values (B, N, C) of each class with its symmetric kernel (C, K)."""
    reach = kernel.shape[1] // 2
    rows = values.transpose(1, 2)
    return functional.conv1d(rows, kernel.unsqueeze(1), padding=reach, groups=kernel.shape[0]).transpose(1, 2)


def _log_mean_exp(values: Tensor, mask: Tensor) -> Tensor:
    """Compute the log-mean-exp (B, C) of the valid entries of ``values`` (B, N, C); zero for an empty bag."""
    count, not_empty = mask.sum(1, keepdim=True), mask.any(1, keepdim=True)
    offset = torch.where(mask | ~not_empty, 0.0, float("-inf")).to(values.dtype)
    total = torch.logsumexp(values + offset.unsqueeze(2), 1)
    count = torch.where(not_empty, count, mask.shape[1]).to(values.dtype)  # in an empty bag all values are zero
    return total - count.log()
