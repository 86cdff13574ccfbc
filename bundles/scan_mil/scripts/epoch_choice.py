"""Selection of the epoch whose weights are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai_mil_ext.utils import save_tensors, write_json
from torch import nn

__all__ = ["EpochChoice", "chosen_epoch"]


def chosen_epoch(history: Sequence[Mapping[str, Any]], below_train: bool) -> Mapping[str, Any] | None:
    """Return the first epoch with the best ``validation`` value, or None if no epoch is eligible.

    Args:
        history: ``epoch``, ``train`` and ``validation`` of each epoch.
        below_train: whether only epochs are eligible whose ``train`` value exceeds the validation value. In earlier
            epochs the network has not yet learned its training set, and a high validation value is chance.

    Example:
        >>> history = [{"epoch": 1, "train": 0.5, "validation": 0.9}, {"epoch": 2, "train": 0.8, "validation": 0.7}]
        >>> chosen_epoch(history, below_train=True)["epoch"], chosen_epoch(history, below_train=False)["epoch"]
        (2, 1)
    """
    counted = [values for values in history if math.isfinite(values["validation"])]
    if below_train:
        counted = [values for values in counted if values["train"] > values["validation"]]
    return max(counted, key=lambda values: float(values["validation"]), default=None)


class EpochChoice:
    """Handler that keeps the weights of the selected epoch as ``model.pt``, and all epochs as ``epochs.json``.

    Place it after the ``ValidationHandler``. ``model.pt`` does not exist until an epoch is eligible. The handler has
    state, so pass it to :py:class:`monai_mil_ext.handlers.TrainingState`.

    Args:
        evaluator: validation engine; its metrics are read after each epoch.
        network: network whose weights are kept.
        ckpt_dir: folder of both files.
        metric: name of the selection metric, of which higher is better; the training metric has the same name.
        below_train: see :py:func:`chosen_epoch`.
        patience: number of epochs without a better value of ``stop_on`` after which Ignite's ``EarlyStopping`` ends the
            run; None never stops early.
        stop_on: name of the validation metric for early stopping.
        stop_mode: ``"max"`` if higher values are better, ``"min"`` if lower values are.

    Raises:
        ValueError: during a run, if validation lacks the metric, or training lacks it and it is needed.
    """

    def __init__(
        self,
        evaluator: Engine,
        network: nn.Module,
        ckpt_dir: str,
        metric: str = "bag_auroc",
        below_train: bool = False,
        patience: int | None = None,
        stop_on: str = "bag_auroc",
        stop_mode: str = "max",
    ) -> None:
        self.evaluator = evaluator
        self.network = network
        self.folder = Path(ckpt_dir)
        self.metric = metric
        self.below_train = below_train
        self.history: list[dict[str, Any]] = []
        stop = None if patience is None else self._stop(patience, stop_on, stop_mode)
        self._early_stop = stop

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, whose epochs are compared."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._judge)
        if self._early_stop is not None:
            self._early_stop.trainer = engine
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._early_stop)

    def state_dict(self) -> dict[str, Any]:
        """Return the history of epochs and the state of early stopping."""
        stop = {} if self._early_stop is None else dict(self._early_stop.state_dict())
        return {"history": [dict(values) for values in self.history], "early_stop": stop}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that :py:meth:`state_dict` returned."""
        self.history = [dict(values) for values in state["history"]]
        if self._early_stop is not None:
            self._early_stop.load_state_dict(state["early_stop"])

    def _stop(self, patience: int, name: str, mode: str) -> EarlyStopping:
        # Ignite needs an engine now, but the trainer is known only when this handler is attached
        return EarlyStopping(patience, lambda _: self._value(self.evaluator, name), Engine(lambda *_: None), mode=mode)

    def _judge(self, engine: Engine) -> None:
        train = self._value(engine, self.metric) if self.below_train else engine.state.metrics.get(self.metric)
        validation = self._value(self.evaluator, self.metric)
        self.history.append({"epoch": engine.state.epoch, "train": train, "validation": validation})
        chosen = chosen_epoch(self.history, self.below_train)
        if idist.get_rank():
            return
        if chosen is self.history[-1]:
            save_tensors(self.folder / "model.pt", self.network.state_dict())
        record = {"metric": self.metric, "below_train": self.below_train, "chosen": chosen, "epochs": self.history}
        write_json(self.folder / "epochs.json", record)

    @staticmethod
    def _value(engine: Engine, name: str) -> float:
        if name not in engine.state.metrics:
            raise ValueError(f"`metric` must be one of {sorted(engine.state.metrics)}, got {name!r}.")
        return float(engine.state.metrics[name])
