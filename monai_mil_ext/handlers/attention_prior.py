"""Adding a term on attention to the loss of any MONAI trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_choice, check_mask

from .score_hook import RecordedScores, ScoreHook, call_after_run

__all__ = ["AttentionPriorHandler"]


class AttentionPriorHandler:
    r"""Adds ``weight * loss(attention, mask)`` to the loss of a ``SupervisedTrainer``, before its backward pass.

    .. math:: L = L_\text{bag} + \lambda \, L_\text{prior}(a, m)

    Attention is read where the network computes it, so the network stays as it is; see :py:class:`ScoreHook`. The term
    is computed in float32 with autocast off. Its value, without the weight, is put into ``engine.state.output[name]``
    in each iteration and its mean over the epoch (over all processes) into ``engine.state.metrics[name]``, where
    handlers that are attached later (``StatsHandler``, ``TensorBoardStatsHandler``) find it. With weight 0 there is no
    hook and no term at all. A schedule of the weight is state: give the handler to :py:class:`TrainingState`.

    Args:
        loss: takes attention (B, N, H) and the mask (B, N) or ``None``, gives a scalar.
        layer: dotted path of the submodule whose output, (B, N, S) or (B, N), is read.
        kind: ``"scores"``, to be put through a softmax over the instances, or ``"attention"``, which was already.
        weight: :math:`\lambda`; :py:meth:`set_weight` changes it, as setter of a ``ParamSchedulerHandler``.
        name: of the term in the output and in the metrics.
        mask_argument: which argument of the network's ``forward`` is the mask.

    Raises:
        ValueError: when ``kind`` or the weight is not allowed; when a run starts and the network has no such ``layer``;
            when the layer's output has another shape, the layer did not fire, or ``name`` is taken.

    Example:
        >>> from monai_mil_ext.losses import NormalGuidanceLoss
        >>> handler = AttentionPriorHandler(NormalGuidanceLoss(), layer="attention")  # of MONAI's own MILModel
        >>> handler.set_weight(0.5)
        >>> handler.state_dict()
        {'weight': 0.5}
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor | None], Tensor],
        layer: str = "score_tap",
        kind: str = "scores",
        weight: float = 1.0,
        name: str = "attention_prior",
        mask_argument: str = "mask",
    ) -> None:
        check_choice("kind", kind, ("scores", "attention"))
        self.loss = loss
        self.layer = layer
        self.kind = kind
        self.name = name
        self.mask_argument = mask_argument
        self._network: torch.nn.Module | None = None  # only during a run
        self._hook: ScoreHook | None = None
        self._terms: list[Tensor] = []
        self.set_weight(weight)

    def attach(self, engine: Any) -> None:
        """Follow the runs of a ``SupervisedTrainer``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_term)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        call_after_run(engine, self._stop)

    def set_weight(self, value: float) -> None:
        """Change the weight, from the next iteration on."""
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"`weight` must be finite and not negative, got {value!r}.")
        self.weight = float(value)
        self._hook_if_needed()

    def state_dict(self) -> dict[str, float]:
        """The weight, which a schedule may have moved."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take the weight up again."""
        self.set_weight(state["weight"])

    def _start(self, engine: Any) -> None:
        self._stop()
        self._network = engine.network
        ScoreHook(engine.network, self.layer, self.mask_argument).remove()  # a wrong path is named at any weight
        self._hook_if_needed()

    def _stop(self) -> None:
        self._network = None
        self._terms.clear()
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
        output = engine.state.output
        if self.name in output:
            raise ValueError(
                f"`name` must not be taken in the trainer's output ({', '.join(output)}), got {self.name!r}."
            )
        recorded = self._hook.pop()
        if recorded is None:
            raise ValueError(
                f"`layer` must fire in every training forward with gradients on, got nothing from {self.layer!r}."
            )
        attention, mask = self._attention(recorded)
        with torch.autocast(attention.device.type, enabled=False):
            term = self.loss(attention, mask)
            if term.ndim:
                raise ValueError(f"`loss` must give a scalar, got shape {tuple(term.shape)}.")
            output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + self.weight * term
        output[self.name] = term.detach()
        self._terms.append(term.detach())

    def _attention(self, recorded: RecordedScores) -> tuple[Tensor, Tensor | None]:
        output, mask = recorded
        if not isinstance(output, Tensor) or output.ndim not in (2, 3):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"`layer` must put out a tensor (B, N) or (B, N, S), got {got} from {self.layer!r}.")
        scores = output.as_subclass(Tensor)  # a MetaTensor in would come out as the loss
        if scores.ndim == 2:
            scores = scores.unsqueeze(-1)
        if mask is not None:
            mask = mask.as_subclass(Tensor)
            check_mask(mask, scores)
        return (masked_softmax(scores, mask) if self.kind == "scores" else scores), mask

    def _report(self, engine: Any) -> None:
        engine.state.metrics.pop(self.name, None)
        if self._terms:
            sums = torch.stack([torch.stack(self._terms).sum(), self._terms[0].new_tensor(len(self._terms))])
            total, count = idist.all_reduce(sums).tolist()
            engine.state.metrics[self.name] = total / count
            self._terms.clear()
