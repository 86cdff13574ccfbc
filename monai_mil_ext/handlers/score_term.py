"""What handlers that add a term on scores to the loss of a trainer have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_mil_ext.utils import check_mask

from .score_hook import RecordedScores, ScoreHook, call_after_run

__all__ = ["ScoreTermHandler"]


class ScoreTermHandler(ABC):
    """Base of handlers that add ``weight * term`` to the loss of a ``SupervisedTrainer``, before its backward pass.

    A subclass computes the term, and what else is worth a line in the log, from the scores of one training forward.
    Each value is put into ``engine.state.output`` in each iteration and its mean over the epoch (over all processes)
    into ``engine.state.metrics``. With weight 0 there is no hook and no term.

    Args:
        layer: dotted path of the submodule whose output, (B, N, S) or (B, N), is read; see :py:class:`ScoreHook`.
        weight: of the term; :py:meth:`set_weight` changes it.
        name: of the term in the output and in the metrics.
        mask_argument: which argument of the network's ``forward`` is the mask.

    Raises:
        ValueError: when the weight is not allowed; when a run starts and the network has no such ``layer``; when the
            layer's output has another shape, the layer did not fire, the term is no scalar, or its name is taken.
    """

    _weight_name = "weight"  # as the constructor of a subclass calls it

    def __init__(self, layer: str, weight: float, name: str, mask_argument: str) -> None:
        self.layer = layer
        self.name = name
        self.mask_argument = mask_argument
        self._network: nn.Module | None = None  # only during a run
        self._hook: ScoreHook | None = None
        self._seen: dict[str, list[Tensor]] = {}  # in this epoch
        self.set_weight(weight)

    @abstractmethod
    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Scalars by name, of what the layer put out (B, N, S): the term, under ``self.name``, and others to log."""

    def attach(self, engine: Any) -> None:
        """Follow the runs of a ``SupervisedTrainer``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_term)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        call_after_run(engine, self._stop)

    def set_weight(self, value: float) -> None:
        """Change the weight, from the next iteration on."""
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"`{self._weight_name}` must be finite and not negative, got {value!r}.")
        self.weight = float(value)
        self._hook_if_needed()

    def weight_now(self) -> float:
        """What the term is multiplied by in this iteration."""
        return self.weight

    def state_dict(self) -> dict[str, Any]:
        """The weight, which a schedule may have moved."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the weight up again."""
        self.set_weight(state["weight"])

    def _start(self, engine: Any) -> None:
        self._stop()
        self._network = engine.network
        ScoreHook(engine.network, self.layer, self.mask_argument).remove()  # a wrong path is named at any weight
        self._hook_if_needed()

    def _stop(self) -> None:
        self._network = None
        self._seen.clear()
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
            with torch.autocast(values[self.name].device.type, enabled=False):
                output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + self.weight_now() * values[self.name]
        for name, value in values.items():
            output[name] = value.detach()
            self._seen.setdefault(name, []).append(output[name])

    def _checked(self, recorded: RecordedScores) -> RecordedScores:
        """Scores (B, N, S) and a mask that fits, as plain tensors: a MetaTensor in would come out as the loss."""
        scores, mask = self._plain(recorded.output), recorded.mask
        if mask is not None:
            mask = mask.as_subclass(Tensor)
            check_mask(mask, scores)
        return RecordedScores(scores, mask)

    def _plain(self, output: Any) -> Tensor:
        """Scores (B, N, S) of what the layer put out."""
        if not isinstance(output, Tensor) or output.ndim not in (2, 3):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"`layer` must put out a tensor (B, N) or (B, N, S), got {got} from {self.layer!r}.")
        scores = output.as_subclass(Tensor)
        return scores.unsqueeze(-1) if scores.ndim == 2 else scores

    def _report(self, engine: Any) -> None:
        for name, seen in self._seen.items():
            engine.state.metrics.pop(name, None)
            if seen:
                sums = torch.stack([torch.stack(seen).sum(), seen[0].new_tensor(len(seen))])
                total, count = idist.all_reduce(sums).tolist()
                engine.state.metrics[name] = total / count
                seen.clear()
