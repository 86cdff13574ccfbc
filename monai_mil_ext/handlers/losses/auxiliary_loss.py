"""Base class of handlers that add a term on scores to the loss of a trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_mil_ext.handlers.epoch_mean import report_mean
from monai_mil_ext.handlers.monai_engines import check_not_attached, check_trainer
from monai_mil_ext.utils import check_mask, check_not_negative, without_autocast

from .score_hook import RecordedScores, ScoreHook, call_after_run

__all__ = ["AuxiliaryLossHandler"]


class AuxiliaryLossHandler(ABC):
    """Base class of handlers that add ``weight * term`` to the loss of a ``SupervisedTrainer``.

    The term is added before the backward pass. A subclass computes it, and further values to log, from the scores of a
    training forward pass. All values are stored in ``engine.state.output`` in each iteration, and their means over the
    epoch (over all processes) in ``engine.state.metrics``. With weight 0 there is no hook and no term.

    Args:
        layer: dotted path of the submodule whose output is read: (B, N, S) or (B, N); see :py:class:`ScoreHook`.
        weight: weight of the term; :py:meth:`set_weight` changes it.
        name: name of the term in the output and in the metrics.
        mask_argument: argument of the network's ``forward`` that is the mask.

    Raises:
        ValueError: if the weight is not allowed; when a run starts, if the network has no such ``layer``; in a run, if
            the output of the layer has another shape, the layer is not called, the term is not a scalar, its name is
            taken, or the network got a mask that is not its ``mask_argument``: a Boolean tensor (B, N), or one whose
            name contains "mask".
    """

    _weight_name = "weight"  # argument name in the constructor of the subclass

    def __init__(self, layer: str, weight: float, name: str, mask_argument: str) -> None:
        self.layer = layer
        self.name = name
        self.mask_argument = mask_argument
        self._network: nn.Module | None = None  # only during a run
        self._hook: ScoreHook | None = None
        self._logged: dict[str, list[Tensor]] = {}  # values of this epoch
        self.set_weight(weight)

    @abstractmethod
    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Compute scalars by name from the scores (B, N, S): the term under ``self.name``, and others to log."""

    def attach(self, engine: Any) -> None:
        """Attach to a ``SupervisedTrainer``; raise ``ValueError`` for another engine, or for the same one again."""
        check_trainer(engine)
        check_not_attached(engine, self._start, Events.STARTED)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_term)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        call_after_run(engine, self._stop)

    def set_weight(self, value: float) -> None:
        """Set the weight for all following iterations."""
        check_not_negative(**{self._weight_name: value})
        self.weight = float(value)
        self._hook_if_needed()

    def effective_weight(self) -> float:
        """Return the weight of the term in this iteration."""
        return self.weight

    def state_dict(self) -> dict[str, Any]:
        """Return the weight, which a schedule may have changed."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the weight."""
        self.set_weight(state["weight"])

    def _start(self, engine: Any) -> None:
        self._stop()
        self._network = engine.network
        self._hook_if_needed()
        if self._hook is None:  # raises an error for a wrong path even with weight 0
            ScoreHook(engine.network, self.layer, self.mask_argument).remove()

    def _stop(self) -> None:
        self._network = None
        self._logged.clear()
        self._hook_if_needed()

    def _hook_if_needed(self) -> None:
        if self._network is None or self.weight == 0:
            if self._hook is not None:
                self._hook.remove()
            self._hook = None
        elif self._hook is None:
            self._hook = ScoreHook(self._network, self.layer, self.mask_argument)

    def _add_term(self, engine: Any) -> None:
        if self._hook is None:
            return
        recorded = self._hook.pop()
        if recorded is None:
            raise ValueError(
                f"`layer` must fire in every training forward with gradients on, got nothing from {self.layer!r}."
            )
        output, values = engine.state.output, self.values(*self._checked(recorded))
        for name, value in values.items():
            if name in output:
                raise ValueError(
                    f"`name` must not be taken in the trainer's output ({', '.join(output)}), got {name!r}."
                )
            if value.ndim:
                raise ValueError(f"`loss` must give a scalar, got shape {tuple(value.shape)}.")
        if values:
            with without_autocast(values[self.name]):
                output[CommonKeys.LOSS] = torch.add(
                    output[CommonKeys.LOSS], values[self.name], alpha=self.effective_weight()
                )
        for name, value in values.items():
            output[name] = value.detach() if value.requires_grad else value
            self._logged.setdefault(name, []).append(output[name])

    def _checked(self, recorded: RecordedScores) -> RecordedScores:
        """Return checked scores (B, N, S) and mask as plain tensors: a MetaTensor would make the loss a MetaTensor."""
        scores, mask = self._plain(recorded.output), recorded.mask
        if mask is None:
            self._refuse_unread_mask(scores)
        else:
            mask = plain_tensor(mask)
            check_mask(mask, scores)
        return RecordedScores(scores, mask)

    def _refuse_unread_mask(self, scores: Tensor) -> None:
        """Raise ``ValueError`` if the network got a mask by another name, since padding would enter the term."""
        unread = None if self._hook is None else self._hook.unread_mask(*scores.shape[:2])
        if unread is not None:
            raise ValueError(
                f"`mask_argument` must be the argument of the network's forward that is the mask, "
                f"got {self.mask_argument!r}, while {unread!r} looks like a mask."
            )

    def _plain(self, output: Any) -> Tensor:
        """Return the output of the layer as scores (B, N, S)."""
        if not isinstance(output, Tensor) or output.ndim not in (2, 3):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"`layer` must put out a tensor (B, N) or (B, N, S), got {got} from {self.layer!r}.")
        scores = plain_tensor(output)
        return scores.unsqueeze(-1) if scores.ndim == 2 else scores

    def _report(self, engine: Any) -> None:
        for name, values in self._logged.items():
            report_mean(engine, name, values)
            values.clear()


def plain_tensor(x: Tensor) -> Tensor:
    """Return a tensor of a subclass as a plain one; a plain one is returned itself, without a view in the graph."""
    return x if type(x) is Tensor else x.as_subclass(Tensor)
