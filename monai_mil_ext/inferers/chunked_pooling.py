"""Forward passes that read a bag in chunks, with a softmax that runs over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets import CORAL, AttentionPoolNet, BagEnsemble, BagOutput, SourceNet, StandardizedNet
from monai_mil_ext.networks.nets.bag_net import BagNet
from monai_mil_ext.utils import without_autocast

__all__ = ["RunningForward", "pools_in_chunks", "start_forward"]

AROUND = (CORAL, SourceNet, StandardizedNet)  # networks around another one, with changes of input or output


class RunningForward(Protocol):
    """Forward pass of a network that gets the instances of bags chunk by chunk."""

    def update(self, x: Tensor, mask: Tensor | None) -> None:
        """Add the next instances (B, n, F) of the bags; ``mask`` (B, n) is True for a valid instance."""

    def finish(self) -> BagOutput:
        """Return the output for all instances, like ``forward_bag``."""


def pools_in_chunks(net: Any, wrapped: Any = None) -> bool:
    """Return whether chunks of a bag give the output of a network: it pools by attention, and no hook sees instances.

    Args:
        net: network.
        wrapped: the network inside its wrappers, which may have hooks too.

    Example:
        >>> from monai_mil_ext.networks import nets
        >>> pools_in_chunks(nets.ASMIL(8, 2, 8).eval()), pools_in_chunks(nets.QGMIL(8, 2, 8).eval())
        (True, False)
    """
    if not isinstance(net, BagNet) or net.training or not _fits(net):
        return False
    outer = wrapped if isinstance(wrapped, nn.Module) else net
    return not any(part._forward_hooks or part._forward_pre_hooks for part in outer.modules())


def _fits(net: Any) -> bool:
    if type(net) in AROUND:
        return _fits(net.net)
    if type(net) is BagEnsemble:
        return all(map(_fits, net.members))
    own = type(net).forward_bag, type(net).forward  # a subclass with its own computes something else
    return isinstance(net, AttentionPoolNet) and own == (AttentionPoolNet.forward_bag, BagNet.forward)


def start_forward(net: Any, instances: int, keep_instances: bool = True) -> RunningForward:
    """Start a forward pass in chunks of bags with ``instances`` instances each.

    Args:
        net: network for which :py:func:`pools_in_chunks` is True.
        instances: number N of instances of each bag.
        keep_instances: whether the output has attention and scores; without them, memory is that of a chunk.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> net, x = ABMIL(8, 2).eval(), torch.rand(1, 5, 8)
        >>> with torch.no_grad():
        ...     forward = start_forward(net, instances=5)
        ...     for chunk in x.split(2, dim=1):
        ...         forward.update(chunk, None)
        ...     torch.allclose(forward.finish().logits, net(x), atol=1e-6)
        True
    """
    if type(net) is BagEnsemble:
        return _Members(net, [start_forward(member, instances, keep_instances) for member in net.members])
    if isinstance(net, AttentionPoolNet):
        return _RunningPool(net, instances, keep_instances)
    return _Around(net, start_forward(net.net, instances, keep_instances))


class _Around:
    """Forward pass of a network that changes the input or the output of another one."""

    def __init__(self, net: Any, inner: RunningForward) -> None:
        self.inner = inner
        self.change_input: Callable[..., Tensor] | None = getattr(net, "change_input", None)
        self.change_output: Callable[..., BagOutput] | None = getattr(net, "change_output", None)

    def update(self, x: Tensor, mask: Tensor | None) -> None:
        self.inner.update(x if self.change_input is None else self.change_input(x, mask), mask)

    def finish(self) -> BagOutput:
        output = self.inner.finish()
        return output if self.change_output is None else self.change_output(output)


class _Members:
    """Forward pass of all members of an ensemble."""

    def __init__(self, net: BagEnsemble, members: Sequence[RunningForward]) -> None:
        self.net, self.members = net, members

    def update(self, x: Tensor, mask: Tensor | None) -> None:
        for member in self.members:
            member.update(x, mask)

    def finish(self) -> BagOutput:
        return self.net.combine([member.finish() for member in self.members])


class _RunningPool:
    r"""Attention pooling whose softmax runs over chunks, with their maximum, sum and weighted sums.

    .. math::
        m' = \max(m, \max_n s_n), \quad t' = e^{m - m'} t + \sum_n e^{s_n - m'}, \quad
        z' = e^{m - m'} z + \sum_n e^{s_n - m'} h_n

    for the instances n of a chunk; :math:`z / t` is the attention-weighted sum (Milakov, Gimelshein, "Online normalizer
    calculation for softmax", arXiv:1805.02867). Sums over chunks are in float64, where the device has it, so that their
    error does not grow with the bag.
    """

    def __init__(self, net: AttentionPoolNet, instances: int, keep_instances: bool) -> None:
        self.net, self.instances, self.keep_instances = net, instances, keep_instances
        self.score_instances = net.instance_scorer()
        self.scores: list[Tensor] = []
        self.masks: list[Tensor | None] = []
        self.is_empty = True
        self.top = torch.empty(0)  # m (B, 1, S)

    def update(self, x: Tensor, mask: Tensor | None) -> None:
        self.net.check_input(x, mask, self.net.in_features)
        h, scores = self.score_instances(zero_out_padding(x, mask))
        if self.keep_instances:
            self.scores.append(scores)
            self.masks.append(mask)
        with without_autocast(x):
            self._add(h, _wide(scores, mask))

    def _add(self, h: Tensor, scores: Tensor) -> None:
        exact = torch.float32 if h.device.type == "mps" else torch.float64
        top = scores.amax(1, keepdim=True)
        top = top if self.is_empty else torch.maximum(top, self.top)
        shift = _finite(top)
        weights = torch.exp(scores - shift)
        total, pooled = weights.sum(1, keepdim=True).to(exact), self.net.pool(weights, h).to(exact)
        if self.is_empty:
            self.total, self.pooled, self.dtype, self.is_empty = total, pooled, scores.dtype, False
        else:
            shrink = torch.exp((self.top - shift).to(exact))
            self.total = self.total.mul_(shrink).add_(total)
            self.pooled = self.pooled.mul_(shrink.transpose(1, 2)).add_(pooled)
        self.top = top

    def finish(self) -> BagOutput:
        total = torch.where(self.total > 0, self.total, 1.0)  # an empty bag has zeros, as in `masked_softmax`
        pooled = (self.pooled / total.transpose(1, 2)).to(self.dtype)
        with without_autocast(pooled):  # which costs no time, and the logits lose no digits
            logits, embedding = self.net.classify_pooled(pooled)
        if not self.keep_instances:
            return BagOutput(logits, None, None, embedding)
        return BagOutput(logits, self._attention(total.to(self.dtype)), self._tapped(), embedding)

    def _attention(self, total: Tensor) -> Tensor:
        shift, start = _finite(self.top), 0
        attention = shift.new_empty(0)
        for scores, mask in zip(self.scores, self.masks, strict=True):
            weights = torch.exp(_wide(scores, mask) - shift).div_(total)
            part = self.net.summarize_attention(weights)
            if not start:
                attention = part.new_empty((len(part), self.instances, part.shape[2]))
            attention[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return attention

    def _tapped(self) -> Tensor | None:
        return self.net.tap_scores(torch.cat(self.scores, 1))


def _wide(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return scores in float32 or float64, minus infinity at padding."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores if mask is None else scores.masked_fill(~mask.unsqueeze(-1), float("-inf"))


def _finite(top: Tensor) -> Tensor:
    """Return the maximum of the scores, zero where all instances so far are padding."""
    return top.masked_fill(top == float("-inf"), 0.0)
