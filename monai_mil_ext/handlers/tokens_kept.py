"""How many learned tokens a training step kept."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from .score_hook import call_after_run, find_layer, unwrap_network

__all__ = ["TokensKeptHandler"]


class TokensKeptHandler:
    """Puts the mean number of tokens kept a bag into the output of a ``SupervisedTrainer``, and into its metrics.

    It listens to a submodule that is called with queries, tokens (B, T, E) and which of them are kept (B, T), or None
    for all: the ``summarize`` of :py:class:`monai_mil_ext.networks.nets.ASMIL`. Validations of the same network are
    not counted.

    Args:
        layer: dotted path of that submodule.
        name: in ``engine.state.output``, in each iteration, and in ``engine.state.metrics``, as the mean of the epoch.

    Raises:
        ValueError: when a run starts and the network has no such submodule.
    """

    def __init__(self, layer: str = "summarize", name: str = "tokens_kept") -> None:
        self.layer = layer
        self.name = name
        self._handle: Any = None
        self._kept: Tensor | None = None  # in this iteration
        self._seen: list[Tensor] = []  # in this epoch

    def attach(self, engine: Any) -> None:
        """Follow the runs of a ``SupervisedTrainer``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._log)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        call_after_run(engine, self._stop)

    def _start(self, engine: Any) -> None:
        self._stop()
        net, compiled = unwrap_network(engine.network)
        self._handle = find_layer(net, self.layer).register_forward_pre_hook(self._count)
        if compiled:
            torch.compiler.reset()

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        self._kept = None
        self._seen = []

    def _count(self, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        _, tokens, kept = args
        every = tokens.new_full((), tokens.shape[1], dtype=torch.float32)
        self._kept = every if kept is None else kept.sum(dim=1).float().mean()

    def _log(self, engine: Any) -> None:
        """Behind the training forward, so that whatever a validation has left is overwritten."""
        if self._kept is not None:
            engine.state.output[self.name] = self._kept
            self._seen.append(self._kept)

    def _report(self, engine: Any) -> None:
        engine.state.metrics.pop(self.name, None)
        if self._seen:
            sums = torch.stack([torch.stack(self._seen).sum(), self._seen[0].new_tensor(len(self._seen))])
            total, count = idist.all_reduce(sums).tolist()
            engine.state.metrics[self.name] = total / count
            self._seen = []
