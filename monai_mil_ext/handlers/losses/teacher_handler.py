"""Base class of handlers whose teacher follows the network that they train."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn

from monai_mil_ext.utils import check_fraction, is_on_host

from .auxiliary_loss import AuxiliaryLossHandler
from .ema_teacher import EMATeacher
from .score_hook import unwrap_network

__all__ = ["TeacherHandler"]


class TeacherHandler(AuxiliaryLossHandler):
    """Base class of handlers with an :py:class:`EMATeacher`, made when the first run starts.

    The teacher is updated after each step that the optimizer actually takes: accumulated iterations and steps skipped
    by a gradient scaler do not count; those of a fused optimizer on a GPU are counted at first, and subtracted at the
    end of the epoch, so that no step waits for the device. It is not part of the network, so evaluation and checkpoints
    of the network do not change; pass the handler to :py:class:`TrainingState` to save it. A handler has one teacher
    for one network.

    Args:
        layer: dotted path of the submodule whose output is read.
        weight: weight of the term.
        name: name of the term in the output and in the metrics.
        mask_argument: argument of the network's ``forward`` that is the mask.
        momentum: momentum of the average; with 1 the teacher never changes.

    Raises:
        ValueError: see :py:class:`AuxiliaryLossHandler`; when a run starts, if it trains another network than the
            teacher's, or one that cannot be copied.
    """

    role = "teacher"  # name in the state and in messages

    def __init__(self, layer: str, weight: float, name: str, mask_argument: str, momentum: float) -> None:
        super().__init__(layer, weight, name, mask_argument)
        check_fraction(momentum=momentum)
        self.momentum = momentum
        self.steps = 0  # taken by the optimizer
        self._teacher: EMATeacher | None = None
        self._loaded: Mapping[str, Tensor] | None = None  # state for a teacher that does not exist yet
        self._copied: weakref.ref[nn.Module] | None = None  # the network of the teacher
        self._step_hook: Any = None
        self._skipped: Tensor | None = None  # number of counted steps that a fused optimizer did not take

    @abstractmethod
    def make_teacher(self, network: nn.Module) -> EMATeacher:
        """Return a new teacher of the network."""

    def next_momentum(self) -> float | None:
        """Return the momentum of the update after step ``self.steps``, or ``None`` for no update."""
        return self.momentum

    def attach(self, engine: Any) -> None:
        """Attach to a ``SupervisedTrainer``."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_STARTED, self._make_teacher)

    def state_dict(self) -> dict[str, Any]:
        """Return the weight of the term, the number of steps and the weights of the teacher."""
        self._subtract_skipped()
        teacher = self._loaded if self._teacher is None else self._teacher.state_dict()
        return super().state_dict() | {"steps": self.steps, self.role: teacher}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that :py:meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.steps = state["steps"]
        self._loaded = state[self.role]
        self._load_teacher()

    def _start(self, engine: Any) -> None:
        super()._start(engine)
        self._step_hook = engine.optimizer.register_step_post_hook(self._update_teacher)
        self._look_up_again()

    def _report(self, engine: Any) -> None:
        self._look_up_again()
        self._subtract_skipped()
        super()._report(engine)

    def _stop(self) -> None:
        super()._stop()
        if self._step_hook is not None:
            self._step_hook.remove()
            self._step_hook = None

    def _make_teacher(self, engine: Any) -> None:
        """Copy the network before the first forward pass, after handlers that load a checkpoint at the start."""
        network = unwrap_network(engine.network)[0]
        copied = None if self._copied is None else self._copied()
        if self._teacher is not None and copied is not network:
            raise ValueError(
                f"`engine` must train the network of the {self.role}, got another {type(network).__name__}: "
                "make a new handler for each network."
            )
        if self._teacher is None:
            self._copied = weakref.ref(network)
            self._teacher = self.make_teacher(engine.network)
            self._load_teacher()

    def _look_up_again(self) -> None:
        if self._teacher is not None:
            self._teacher.look_up_again()

    def _load_teacher(self) -> None:
        if self._teacher is not None and self._loaded is not None:
            self._teacher.load_state_dict(self._loaded)
            self._loaded = None

    def _update_teacher(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        overflow = getattr(optimizer, "found_inf", None)  # a fused optimizer is called even if the step is skipped
        if overflow is not None and is_on_host(overflow):
            if overflow.item():
                return
            overflow = None
        if self._teacher is None or self._network is None:
            return
        self.steps += 1
        if overflow is not None:
            self._skipped = overflow.clone() if self._skipped is None else self._skipped + overflow
        momentum = self.next_momentum()
        if momentum is not None:
            self._teacher.update(self._network, momentum, overflow)

    def _subtract_skipped(self) -> None:
        if self._skipped is not None:
            self.steps -= int(self._skipped.item())
            self._skipped = None
