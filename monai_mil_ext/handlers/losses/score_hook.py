"""Hook that records the output of a submodule during training."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["RecordedScores", "ScoreHook", "call_after_run", "find_layer", "unwrap_network"]


class RecordedScores(NamedTuple):
    """Output of a layer and the mask of the same forward pass.

    Attributes:
        output: output of the layer, attached to the autograd graph.
        mask: mask (B, N), True for valid instances; ``None`` if the network was called without one.
    """

    output: Any
    mask: Tensor | None


class ScoreHook:
    """Hook that records the output of a submodule in each training forward pass of a network.

    It records only in training mode, with gradients enabled and within the network's own forward pass: neither
    validation with the same network nor recomputation of a checkpoint in the backward pass is recorded. If the
    submodule is called twice in a forward pass, the second output replaces the first; a new forward pass discards the
    last record. The network may be wrapped by ``DistributedDataParallel`` or ``torch.compile``; a compiled network is
    compiled again, since it would ignore new hooks.

    Args:
        network: network with the submodule.
        layer: dotted path of the submodule, for example ``"score_tap"``.
        mask_argument: argument of the network's ``forward`` that is the mask; networks without an argument ``"mask"``
            have no mask.

    Raises:
        ValueError: if the network has no such submodule or argument, or is a ``DataParallel``.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 1), nn.Tanh())
        >>> hook = ScoreHook(net, layer="0")
        >>> _ = net(torch.zeros(2, 5, 4))
        >>> hook.pop().output.shape, hook.pop()
        (torch.Size([2, 5, 1]), None)
        >>> hook.remove()
    """

    def __init__(self, network: nn.Module, layer: str, mask_argument: str = "mask") -> None:
        net, self._compiled = unwrap_network(network)
        submodule = find_layer(net, layer)
        self._mask_argument = mask_argument
        self._parameters = list(inspect.signature(net.forward).parameters)
        self._mask_index = _find_argument(net, mask_argument)
        self._inside = False
        self._mask: Tensor | None = None
        self._recorded: RecordedScores | None = None
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self._handles = [
            net.register_forward_pre_hook(self._enter, with_kwargs=True),
            submodule.register_forward_hook(self._record),
            net.register_forward_hook(self._leave, always_call=True),
        ]
        self._reset_compiler()

    def pop(self) -> RecordedScores | None:
        """Return and clear the record of the last forward pass, or ``None``."""
        recorded, self._recorded = self._recorded, None
        return recorded

    def pop_call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return and clear the positional and keyword arguments of the last recorded forward pass."""
        call, self._call = self._call, ((), {})
        return call

    def unread_mask(self, bags: int, instances: int) -> str | None:
        """Return the name of an argument of the recorded call that looks like a mask but was not read as one.

        That is a Boolean tensor (B, N), whatever its name, or any tensor (B, N) with "mask" in its name.
        """
        for name, value in _named_arguments(self._parameters, *self._call):
            if name == self._mask_argument or not isinstance(value, Tensor) or value.ndim < 2:
                continue
            fits = len(value) == bags and value.numel() == bags * instances
            if fits and (value.dtype == torch.bool or "mask" in name):
                return name
        return None

    def remove(self) -> None:
        """Remove all hooks from the network and clear the record."""
        for handle in self._handles:
            handle.remove()
        self._recorded = self._mask = None
        self._call = (), {}
        self._reset_compiler()

    def _reset_compiler(self) -> None:
        if self._compiled:
            torch.compiler.reset()

    def _enter(self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._recorded = None
        self._inside = net.training
        self._call = (args, kwargs) if self._inside else ((), {})
        index = self._mask_index
        positional = args[index] if index is not None and index < len(args) else None
        self._mask = kwargs.get(self._mask_argument, positional)

    def _record(self, _layer: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if self._inside and torch.is_grad_enabled():
            self._recorded = RecordedScores(output, self._mask)

    def _leave(self, _net: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        self._inside = False
        self._mask = None


def call_after_run(engine: Any, clean_up: Callable[[], None]) -> None:
    """Call ``clean_up`` whenever ``engine.run`` ends: by completion, termination or an exception.

    A handler of ``EXCEPTION_RAISED`` is not an alternative: with one attached, Ignite suppresses the exception unless
    the handler raises it again, and then later handlers (for example that of ``CheckpointSaver``) are not called. An
    interrupted run is not cleaned up, since it is resumed later.
    """
    run = engine.run

    @functools.wraps(run)
    def run_and_clean_up(*args: Any, **kwargs: Any) -> Any:
        interrupted = False
        try:
            result = run(*args, **kwargs)
            interrupted = engine.last_event_name == Events.INTERRUPT
            return result
        finally:
            if not interrupted:
                clean_up()

    engine.run = run_and_clean_up


def unwrap_network(network: nn.Module) -> tuple[nn.Module, bool]:
    """Return the network without its wrappers, and whether one of them compiles it."""
    compiled = False
    while True:
        if isinstance(network, DataParallel):
            raise ValueError("`network` must not be a DataParallel, whose replicas share no hook; use DDP.")
        if isinstance(network, DistributedDataParallel):
            network = network.module
        elif hasattr(network, "_orig_mod"):  # the class of compiled modules is not public
            network, compiled = network._orig_mod, True  # type: ignore[assignment]
        else:
            return network, compiled


def find_layer(net: nn.Module, layer: str, name: str = "layer") -> nn.Module:
    """Return the submodule at a dotted path, or raise a ``ValueError`` that lists paths similar to this ``name``."""
    layers = {path: module for path, module in net.named_modules() if path}
    if layer not in layers:
        near = difflib.get_close_matches(layer, layers, n=5)
        last = layer.rpartition(".")[2]
        near += [path for path in layers if path.rpartition(".")[2] == last and path not in near][: 5 - len(near)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else "."
        raise ValueError(f"`{name}` must be the path of a submodule of {type(net).__name__}, got {layer!r}{hint}")
    return layers[layer]


def mask_position(net: nn.Module, name: str) -> tuple[int | None, bool]:
    """Return the index of the mask among the arguments of ``forward``, if it has one, and whether it takes any."""
    parameters = inspect.signature(net.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return _find_argument(net, name), name in parameters or takes_any


def _named_arguments(parameters: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of a call by name, and the items of those that are dictionaries."""
    names = [*parameters[: len(args)], *(f"argument {i}" for i in range(len(parameters), len(args)))]
    for name, value in [*zip(names, args, strict=True), *kwargs.items()]:
        yield name, value
        if isinstance(value, Mapping):
            yield from ((str(key), item) for key, item in value.items())


def _find_argument(net: nn.Module, name: str) -> int | None:
    """Return the index of an argument of ``forward``, or ``None`` if it is keyword-only or does not exist."""
    parameters = inspect.signature(net.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if name in parameters:
        positional = parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
        return list(parameters).index(name) if positional else None
    if name != "mask" and not takes_any:
        names = ", ".join(map(repr, parameters))
        raise ValueError(
            f"`mask_argument` must be an argument of {type(net).__name__}.forward ({names}), got {name!r}."
        )
    return None
