"""A network that follows another one slowly, and is asked for its scores."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from .score_hook import find_layer, unwrap_network

__all__ = ["ScoreAnchor"]


class ScoreAnchor:
    r"""A copy of a network in evaluation mode, whose weights are a moving average of the network's.

    .. math:: \theta' \leftarrow m \theta' + (1 - m) \theta

    over parameters and floating buffers; other buffers are copied. Averages of 16-bit weights are kept in float32,
    where a step of :math:`1 - m` is not lost. Hooks on the network are not copied.

    Args:
        network: what to copy; it may be wrapped by ``DistributedDataParallel`` or ``torch.compile``.
        layer: dotted path of the submodule whose output are the scores.
        dtype: to compute them in by autocast, ``torch.bfloat16`` say, whatever the caller computes in; ``None`` leaves
            that to the caller.

    Raises:
        ValueError: when the network has no such submodule, or a state of another network is loaded.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> anchor = ScoreAnchor(nn.Sequential(net), layer="0")
        >>> torch.equal(anchor.scores(torch.ones(1, 2)), net(torch.ones(1, 2)))
        True
    """

    def __init__(self, network: nn.Module, layer: str, dtype: torch.dtype | None = None) -> None:
        net, _ = unwrap_network(network)
        self._dtype = dtype
        self._net = _copy_without_hooks(net).eval().requires_grad_(False)
        self._tensors = _tensors(self._net)
        self._averages = {name: t.float() if _is_short(t) else t for name, t in self._tensors.items()}
        self._scores: Any = None
        find_layer(self._net, layer).register_forward_hook(self._keep)

    def scores(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer puts out when the network is called with these arguments; ``None`` if it does not fire."""
        with torch.no_grad(), self._precision():
            self._net(*args, **kwargs)
        scores, self._scores = self._scores, None
        return scores

    def follow(self, network: nn.Module, momentum: float) -> None:
        """Move towards the network, all the way with momentum 0; buffers are those of the first process."""
        net, _ = unwrap_network(network)
        buffers = dict(net.named_buffers())
        with torch.no_grad():
            for name, online in _tensors(net).items():
                if name in buffers and idist.get_world_size() > 1:
                    online = idist.broadcast(online.clone())  # noqa: PLW2901
                average = self._averages[name]
                if average.is_floating_point() and momentum:
                    average += (1 - momentum) * (online - average)
                else:
                    average.copy_(online)
                self._tensors[name].copy_(average)

    def distance(self, network: nn.Module) -> Tensor:
        r""":math:`\lVert \theta - \theta' \rVert_2` over the parameters."""
        net, _ = unwrap_network(network)
        with torch.no_grad():
            gaps = [(p.to(self._averages[name]) - self._averages[name]).norm() for name, p in net.named_parameters()]
            return torch.stack(gaps).norm()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up averages."""
        names = set(self._averages) ^ set(state)
        wrong = sorted(names | {n for n in set(state) - names if state[n].shape != self._averages[n].shape})
        if wrong:
            raise ValueError(f"`state` must be that of an anchor of the same network, got other {', '.join(wrong)}.")
        with torch.no_grad():
            for name, average in self._averages.items():
                average.copy_(state[name])
                self._tensors[name].copy_(average)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        device = next((t.device.type for t in self._tensors.values()), "cpu")
        return torch.autocast(device, dtype=self._dtype)

    def _keep(self, _layer: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._scores = output


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def _is_short(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() < torch.float32.itemsize


def _copy_without_hooks(net: nn.Module) -> nn.Module:
    """A deep copy; what hangs on a network, a whole trainer perhaps, is neither copied nor called by the copy."""
    empty: dict[int, Any] = {id(hooks): OrderedDict() for module in net.modules() for hooks in _hooks(module)}
    return copy.deepcopy(net, empty)


def _hooks(module: nn.Module) -> Iterable[Any]:
    return [
        v for k, v in vars(module).items() if k.startswith(("_forward", "_backward")) and isinstance(v, OrderedDict)
    ]
