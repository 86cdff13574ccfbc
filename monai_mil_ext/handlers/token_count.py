"""Handler that logs the number of tokens kept per bag."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from monai_mil_ext.handlers.epoch_mean import report_mean
from monai_mil_ext.handlers.losses.score_hook import call_after_run, find_layer, unwrap_network
from monai_mil_ext.handlers.monai_engines import check_not_attached, check_trainer

__all__ = ["TokenCountHandler"]


class TokenCountHandler:
    """Handler that logs the mean number of tokens kept per bag in output and metrics of a ``SupervisedTrainer``.

    It hooks a submodule that is called with queries, tokens (B, T, E) and a mask (B, T) of kept tokens or None, like
    ``summarize`` of :py:class:`monai_mil_ext.networks.nets.ASMIL`. Validation with the same network is not counted.

    Args:
        layer: dotted path of the submodule.
        name: name in ``engine.state.output`` (value of the iteration) and in ``engine.state.metrics`` (mean over the
            epoch).

    Raises:
        ValueError: when a run starts, if the network has no such submodule.
    """

    def __init__(self, layer: str = "summarize", name: str = "tokens_kept") -> None:
        self.layer = layer
        self.name = name
        self._handle: Any = None
        self._kept: Tensor | None = None  # value of this iteration
        self._logged: list[Tensor] = []  # values of this epoch

    def attach(self, engine: Any) -> None:
        """Attach to a ``SupervisedTrainer``."""
        check_trainer(engine)
        check_not_attached(engine, self._start, Events.STARTED)
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
        self._logged = []

    def _count(self, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        _, tokens, kept = args
        total = tokens.new_full((), tokens.shape[1], dtype=torch.float32)
        self._kept = total if kept is None else kept.sum(dim=1).float().mean()

    def _log(self, engine: Any) -> None:
        """Log the value after the training forward pass, which has overwritten that of a validation."""
        if self._kept is not None:
            engine.state.output[self.name] = self._kept
            self._logged.append(self._kept)

    def _report(self, engine: Any) -> None:
        report_mean(engine, self.name, self._logged)
        self._logged = []
