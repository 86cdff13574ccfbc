"""Values of the epochs of a training, and the weights with the lowest validation loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_mil_ext.apps.study.outputs import TaskOutputs, cross_validated_loss, main_metric
from monai_mil_ext.metrics import attention_changes
from monai_mil_ext.utils import BagKeys, head_mean

__all__ = ["BestEpoch", "Report"]

CASE = str(BagKeys.CASE_ID)
Report = Callable[[int, float], None]


class BestEpoch:
    """Handler that notes the values of each epoch, and keeps the weights with the lowest validation loss.

    Of epochs with the same loss, it keeps the last. The validation loss of a Cox model is
    :py:func:`cross_validated_loss`, with the logits of the training part during the epoch.

    Args:
        net: network in training.
        outputs: conversion of its logits.
        report: function that is called with each epoch and its validation loss.

    Attributes:
        history: for each epoch ``epoch``, ``train_loss`` and, of the validation part, ``val_loss``, the metric of the
            task and ``attention_jsd``, the divergence from the attention of the epoch before.
        epoch: epoch of the weights.
        loss: its validation loss.
    """

    def __init__(self, net: nn.Module, outputs: TaskOutputs, report: Report | None) -> None:
        self.net, self.outputs, self.report = net, outputs, report
        self.history: list[dict[str, float]] = []
        self.epoch, self.loss, self.last_loss = 0, math.nan, math.nan
        self._weights: dict[str, Tensor] | None = None
        self._train_losses: list[float] = []
        self._trained: list[tuple[Tensor, Tensor]] = []
        self._logits: list[Tensor] = []
        self._rows: list[dict[str, Any]] = []
        self._attention: dict[str, Tensor] = {}
        self._last_attention: dict[str, Tensor] | None = None
        self._changes: dict[str, list[float]] = {}

    def attach(self, trainer: Engine) -> None:
        """Attach to the trainer, before the handler that validates."""
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._note_loss)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._note_epoch)

    def attach_validation(self, evaluator: Engine) -> None:
        """Attach to the evaluator."""
        evaluator.add_event_handler(Events.STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._compare)

    def restore(self) -> None:
        """Load the weights of the best epoch; without a validation, those of the last one stay."""
        if self._weights is not None:
            self.net.load_state_dict(self._weights)
        elif self.history and "val_loss" in self.history[-1]:
            raise ValueError("the validation loss must be finite in one epoch, got none: try a lower learning rate.")

    def stability(self) -> dict[str, float]:
        """Return the mean change of the attention from epoch to epoch of each validation case, in nats."""
        return {case: math.fsum(values) / len(values) for case, values in self._changes.items()}

    def _start_epoch(self) -> None:
        self._train_losses.clear()
        self._trained.clear()

    def _note_loss(self, engine: Engine) -> None:
        output = engine.state.output
        self._train_losses.append(output["loss"].item())
        if self.outputs.task.kind == "cox":
            self._trained.append((output["pred"].detach().float().cpu(), torch.as_tensor(output["label"]).cpu()))

    def _note_epoch(self, engine: Engine) -> None:
        loss = sum(self._train_losses) / max(1, len(self._train_losses))
        self.epoch = engine.state.epoch if math.isnan(self.loss) else self.epoch
        self.history.append({"epoch": engine.state.epoch, "train_loss": loss})

    def _start(self) -> None:
        self._logits, self._rows, self._attention = [], [], {}

    def _collect(self, engine: Engine) -> None:
        values, batch = engine.state.output["pred"], engine.state.batch
        self._logits.append(values["logits"].float().cpu())
        self._rows += [{"label": label} for label in torch.as_tensor(batch["label"])]
        if "attention" in values:
            masks = batch["mask"].cpu()
            for case, attention, mask in zip(batch[CASE], values["attention"].float().cpu(), masks, strict=True):
                self._attention[case] = head_mean(attention[mask])

    def _compare(self) -> None:
        logits, labels = torch.cat(self._logits), torch.stack([row["label"] for row in self._rows])
        loss = self._validation_loss(logits, labels)
        row = self.history[-1]
        row["val_loss"] = loss
        row.update(self._metric(logits, labels))
        if self._attention:
            row["attention_jsd"] = self._compare_attention()
        self.last_loss = loss if math.isfinite(loss) else math.inf
        if math.isfinite(loss) and not loss > self.loss:
            self.loss, self.epoch = loss, int(row["epoch"])
            self._weights = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        if self.report is not None:
            self.report(int(row["epoch"]), self.last_loss)

    def _compare_attention(self) -> float:
        """Return the mean change since the epoch before; NaN in the first one."""
        changes = attention_changes(self._attention, self._last_attention)
        if self._last_attention is not None:
            for case, change in changes.items():
                self._changes.setdefault(case, []).append(change["jsd"])
        self._last_attention = self._attention
        return sum(change["jsd"] for change in changes.values()) / len(changes)

    def _validation_loss(self, logits: Tensor, labels: Tensor) -> float:
        if not self._trained:
            return float(self.outputs.loss()(logits, labels))
        trained = zip(*self._trained, strict=True)
        return cross_validated_loss(logits, labels, *(torch.cat(parts) for parts in trained))

    def _metric(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the metric of the task; labels of a survival are bins, whose order is that of the times."""
        truth = labels.double().numpy()
        if self.outputs.task.kind == "regression":
            truth = truth * self.outputs.scale + self.outputs.center
        return main_metric(self.outputs.task, truth, self.outputs.arrays(logits).output)
