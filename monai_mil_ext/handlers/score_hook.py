"""Reading what one named submodule puts out while a network trains."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["RecordedScores", "ScoreHook", "call_after_run", "find_layer", "unwrap_network"]


class RecordedScores(NamedTuple):
    """What a layer put out, and the mask that its network was called with.

    Attributes:
        output: whatever the layer returned; a tensor still in the graph.
        mask: (B, N), True for a real instance; ``None`` if the network was given none or takes none.
    """

    output: Any
    mask: Tensor | None


class ScoreHook:
    """Records what one submodule puts out during the current training forward of a network.

    Only while the network is in training mode and gradients are on, and only inside its own forward: neither a
    validation that shares the network nor the recomputation of a checkpoint in the backward pass is recorded. A second
    firing within one forward replaces the first, and a new forward forgets the last. The network may be wrapped by
    ``DistributedDataParallel`` or ``torch.compile``; a compiled one is compiled anew, since it would not see new hooks.

    Args:
        network: whose submodule to watch.
        layer: dotted path of the submodule, such as ``"score_tap"``.
        mask_argument: which argument of the network's ``forward`` is the mask; a network without ``"mask"`` has none.

    Raises:
        ValueError: when the network has no such submodule or argument, or is a ``DataParallel``.

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
        watched = find_layer(net, layer)
        self._mask_argument = mask_argument
        self._mask_place = _find_argument(net, mask_argument)
        self._inside = False
        self._mask: Tensor | None = None
        self._recorded: RecordedScores | None = None
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self._handles = [
            net.register_forward_pre_hook(self._enter, with_kwargs=True),
            watched.register_forward_hook(self._record),
            net.register_forward_hook(self._leave, always_call=True),
        ]
        self._forget_compiled()

    def pop(self) -> RecordedScores | None:
        """What was recorded since the last forward began, once."""
        recorded, self._recorded = self._recorded, None
        return recorded

    def pop_call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, by place and by name, of the forward that was recorded last, once."""
        call, self._call = self._call, ((), {})
        return call

    def remove(self) -> None:
        """Take every hook off the network and forget what was recorded."""
        for handle in self._handles:
            handle.remove()
        self._recorded = self._mask = None
        self._call = (), {}
        self._forget_compiled()

    def _forget_compiled(self) -> None:
        if self._compiled:
            torch.compiler.reset()

    def _enter(self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._recorded = None
        self._inside = net.training
        self._call = (args, kwargs) if self._inside else ((), {})
        place = self._mask_place
        given = args[place] if place is not None and place < len(args) else None
        self._mask = kwargs.get(self._mask_argument, given)

    def _record(self, _layer: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if self._inside and torch.is_grad_enabled():
            self._recorded = RecordedScores(output, self._mask)

    def _leave(self, _net: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        self._inside = False
        self._mask = None


def call_after_run(engine: Any, clean_up: Callable[[], None]) -> None:
    """Have ``clean_up`` called whenever ``engine.run`` ends, completed, terminated or by an exception.

    A handler of ``EXCEPTION_RAISED`` can't do this: attaching one makes Ignite swallow the exception unless it raises
    it again, and one that raises keeps the handlers after it (``CheckpointSaver``'s, say) from being called. A run that
    was only interrupted goes on later and is left alone.
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
    """The network inside its wrappers, and whether one of them compiles it."""
    compiled = False
    while True:
        if isinstance(network, DataParallel):
            raise ValueError("`network` must not be a DataParallel, whose replicas share no hook; use DDP.")
        if isinstance(network, DistributedDataParallel):
            network = network.module
        elif hasattr(network, "_orig_mod"):  # what torch.compile makes has no public class
            network, compiled = network._orig_mod, True  # type: ignore[assignment]
        else:
            return network, compiled


def find_layer(net: nn.Module, layer: str) -> nn.Module:
    """Submodule at a dotted path, or a ``ValueError`` that names what is near."""
    layers = {path: module for path, module in net.named_modules() if path}
    if layer not in layers:
        near = difflib.get_close_matches(layer, layers, n=5)
        last = layer.rpartition(".")[2]
        near += [path for path in layers if path.rpartition(".")[2] == last and path not in near][: 5 - len(near)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else "."
        raise ValueError(f"`layer` must be the path of a submodule of {type(net).__name__}, got {layer!r}{hint}")
    return layers[layer]


def _find_argument(net: nn.Module, name: str) -> int | None:
    """Place of an argument of the network's ``forward``; ``None`` if it has to come by name or does not exist."""
    parameters = inspect.signature(net.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if name in parameters:
        by_place = parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
        return list(parameters).index(name) if by_place else None
    if name != "mask" and not takes_any:
        names = ", ".join(map(repr, parameters))
        raise ValueError(
            f"`mask_argument` must be an argument of {type(net).__name__}.forward ({names}), got {name!r}."
        )
    return None
