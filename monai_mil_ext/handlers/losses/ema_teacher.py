"""Exponential moving average of a network, used as a teacher of attention scores."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from .score_hook import find_layer, unwrap_network

__all__ = ["EMATeacher"]


class EMATeacher:
    r"""Copy of a network in evaluation mode whose weights are an exponential moving average of the network's.

    .. math:: \theta' \leftarrow m \theta' + (1 - m) \theta

    for parameters and floating-point buffers; other buffers are copied. Averages of 16-bit weights are kept in
    float32, since a step of :math:`1 - m` would be lost in 16 bits. Hooks on the network are not copied, except those
    with which ``spectral_norm``, ``weight_norm`` and pruning of ``torch.nn.utils`` compute a weight.

    Args:
        network: network to copy; it may be wrapped by ``DistributedDataParallel`` or ``torch.compile``.
        layer: dotted path of the submodule whose output is the scores.
        dtype: autocast dtype in which the copy runs, for example ``torch.bfloat16``, regardless of the caller's
            autocast; ``None`` keeps the caller's.
        embedding_layer: dotted path of the classifier, whose input :py:meth:`scores_and_embedding` also returns.

    Raises:
        ValueError: if the network has no such submodule, cannot be copied, computes a tensor in another kind of hook,
            or the weights or state are of another network.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> anchor = EMATeacher(nn.Sequential(net), layer="0")
        >>> torch.equal(anchor.scores(torch.ones(1, 2)), net(torch.ones(1, 2)))
        True
    """

    def __init__(
        self, network: nn.Module, layer: str, dtype: torch.dtype | None = None, embedding_layer: str | None = None
    ) -> None:
        net, _ = unwrap_network(network)
        self._dtype = dtype
        self._net = _copy_without_hooks(net).eval().requires_grad_(False)
        self._tensors = _tensors(self._net)
        self._averages = {name: t.float() if _is_short(t) else t for name, t in self._tensors.items()}
        self._short = [(t, self._averages[name]) for name, t in self._tensors.items() if _is_short(t)]
        self._groups = _groups(self._averages)
        self._places: _Places | None = None  # of the tensors of the network that the averages follow
        self._scores: Any = None
        self._embedding: Any = None
        find_layer(self._net, layer).register_forward_hook(self._record)
        if embedding_layer is not None:
            find_layer(self._net, embedding_layer, "embedding_layer").register_forward_pre_hook(self._record_embedding)

    def scores(self, *args: Any, **kwargs: Any) -> Any:
        """Return the layer's output for a call with these arguments, or ``None`` if the layer was not called."""
        self._embedding = None
        with torch.no_grad(), self._autocast():
            self._net(*args, **kwargs)
        scores, self._scores = self._scores, None
        return scores

    def scores_and_embedding(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Return the layer's output and the first input of the classifier, each ``None`` if it was not called."""
        scores = self.scores(*args, **kwargs)
        embedding, self._embedding = self._embedding, None
        return scores, embedding

    def update(self, network: nn.Module, momentum: float, skipped: Tensor | None = None) -> None:
        """Update the averages; with momentum 0 the weights are copied. Buffers are taken from the first process.

        Args:
            network: the network.
            momentum: momentum of the average.
            skipped: scalar on the device of the network, 1 if the optimizer did not take the step, so that the averages
                stay; 0 otherwise.
        """
        online = self._online(network)
        with torch.no_grad():
            for names, averages in self._groups:
                targets = [online[name].to(averages[0].dtype) for name in names]
                if averages[0].is_floating_point() and momentum:
                    torch._foreach_lerp_(averages, _unless(skipped, averages, targets), 1 - momentum)
                else:
                    torch._foreach_copy_(averages, targets)
            self._update_short_weights()

    def distance(self, network: nn.Module) -> Tensor:
        r"""Compute :math:`\lVert \theta - \theta' \rVert_2` over all parameters."""
        net, _ = unwrap_network(network)
        _check_tensors(net, self._averages)
        with torch.no_grad():
            gaps = [(p.to(self._averages[name]) - self._averages[name]).norm() for name, p in net.named_parameters()]
            return torch.stack(gaps).norm()

    def look_up_again(self) -> None:
        """Look up the tensors of the network again in the next update, since modules may have been replaced."""
        self._places = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by name."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the averages that :py:meth:`state_dict` returned."""
        others = _differing(state, self._averages)
        if others:
            raise ValueError(f"`state` must be that of an anchor of the same network, got other {others}.")
        with torch.no_grad():
            for name, average in self._averages.items():
                average.copy_(state[name])
            self._update_short_weights()

    def _online(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of a network by name; its buffers are those of the first process."""
        net, _ = unwrap_network(network)
        tensors = None if self._places is None else self._places.tensors(net)
        if tensors is None:
            self._places = _Places(net, self._averages)
            tensors = _tensors(net)
        if idist.get_world_size() > 1:
            tensors |= {name: idist.broadcast(buffer.clone()) for name, buffer in net.named_buffers()}
        return tensors

    def _update_short_weights(self) -> None:
        """Round the float32 averages of 16-bit weights into the copy; all other averages are its own tensors."""
        for tensor, average in self._short:
            tensor.copy_(average)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        device = next((t.device.type for t in self._tensors.values()), "cpu")
        return torch.autocast(device, dtype=self._dtype)

    def _record(self, _layer: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._scores = output

    def _record_embedding(self, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._embedding = args[0] if self._embedding is None else self._embedding


class _Places:
    """Places of the tensors of a network, so that a step need not walk through its modules.

    Args:
        net: network, which is referred to weakly.
        averages: tensors that its own must match.

    Raises:
        ValueError: if the network has other tensors.
    """

    def __init__(self, net: nn.Module, averages: Mapping[str, Tensor]) -> None:
        _check_tensors(net, averages)
        self._net = weakref.ref(net)
        self._shapes = {name: average.shape for name, average in averages.items()}
        self._held = {name: _holder(net, name) for name in averages}

    def tensors(self, net: nn.Module) -> dict[str, Tensor] | None:
        """Return the tensors that the network has now by name, or ``None`` if it must be looked through again."""
        if self._net() is not net:
            return None
        tensors = {}
        for name, (held, key) in self._held.items():
            tensor = held.get(key)
            if tensor is None or tensor.shape != self._shapes[name]:
                return None
            tensors[name] = tensor
        return tensors


def _holder(net: nn.Module, name: str) -> tuple[Mapping[str, Tensor | None], str]:
    """Return the dictionary of a submodule that holds a parameter or buffer, and its key there."""
    path, _, key = name.rpartition(".")
    module = net.get_submodule(path)
    return (module._parameters if key in module._parameters else module._buffers), key


def _groups(averages: Mapping[str, Tensor]) -> list[tuple[list[str], list[Tensor]]]:
    """Return names and tensors in groups of one device and dtype, each of which one call updates."""
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[str], list[Tensor]]] = {}
    for name, average in averages.items():
        names, tensors = groups.setdefault((average.device, average.dtype), ([], []))
        names.append(name)
        tensors.append(average)
    return list(groups.values())


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def _check_tensors(net: nn.Module, averages: Mapping[str, Tensor]) -> None:
    others = _differing(_tensors(net), averages)
    if others:
        raise ValueError(f"`network` must have the weights of the one that was copied, got other {others}.")


def _differing(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return the names of tensors that only one side has, or that have other shapes."""
    both = set(tensors) & set(expected)
    others = set(tensors) ^ set(expected) | {name for name in both if tensors[name].shape != expected[name].shape}
    return ", ".join(sorted(others))


def _is_short(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() < torch.float32.itemsize


def _copy_without_hooks(net: nn.Module) -> nn.Module:
    """Copy a network deeply without its hooks, which may hold a whole trainer, except those that compute a weight."""
    memo: dict[int, Any] = {}
    for path, module in net.named_modules():
        kept = {key: hook for key, hook in module._forward_pre_hooks.items() if _computes_weight(hook)}
        for hooks in _hooks(module):
            memo[id(hooks)] = OrderedDict()
        memo[id(module._forward_pre_hooks)] = OrderedDict((key, copy.deepcopy(hook)) for key, hook in kept.items())
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:  # the result of a hook, or of the last forward
                if len(module._forward_pre_hooks) > len(kept):
                    raise ValueError(
                        f"`network` must not compute weights in its own hooks, which are not copied, got {name!r} of "
                        f"{path!r}; use torch.nn.utils.parametrize."
                    )
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(net, memo)
    except (RuntimeError, TypeError) as error:
        kind, reason = type(net).__name__, str(error).partition("\n")[0]
        raise ValueError(f"`network` must be one that copy.deepcopy can copy, got {kind}: {reason}") from error


def _computes_weight(hook: Any) -> bool:
    """Return whether a hook is from ``torch.nn.utils``: spectral or weight normalization, or pruning."""
    return type(hook).__module__.startswith("torch.nn.utils.")


def _hooks(module: nn.Module) -> Iterable[Any]:
    return [
        value
        for name, value in vars(module).items()
        if name.startswith(("_forward", "_backward")) and isinstance(value, OrderedDict)
    ]


def _unless(skipped: Tensor | None, averages: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
    """Return the targets, or the averages themselves if the step was skipped."""
    if skipped is None:
        return targets
    stays = skipped.to(averages[0].device) > 0
    return [torch.where(stays, average, target) for average, target in zip(averages, targets, strict=True)]
