"""Keeps the weights of the epoch that validation chooses, in a run that may be killed and go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_mil_ext.utils import atomic_path

__all__ = ["BestEpochSaver"]


class BestEpochSaver:
    """Saves the state of ``network`` after each validation whose key metric is the best so far.

    MONAI's ``CheckpointSaver`` forgets the best value when a run is killed, and the run that goes on then replaces the
    best weights by its first. This one has a state for :py:class:`TrainingState`, and gives it back to the evaluator
    too. The file is replaced as a whole; of several processes the first writes.

    Args:
        save_dir: folder of the file.
        network: whose weights to save; not its wrapper for several processes.
        filename: of the file.

    Raises:
        ValueError: when the key metric is NaN, as an AUROC is where all bags are of one class.

    Example:
        >>> BestEpochSaver("models", nn.Linear(2, 2)).state_dict()
        {'metric': -1.0, 'epoch': -1}
    """

    def __init__(self, save_dir: str, network: nn.Module, filename: str = "model.pt") -> None:
        self.path = Path(save_dir) / filename
        self.network = network
        self._engine: Engine | None = None
        self._loaded: Mapping[str, Any] = {"metric": -1.0, "epoch": -1}

    def attach(self, engine: Engine) -> None:
        """Save after the validations of ``engine``, a MONAI evaluator with a key metric."""
        self._engine = engine
        engine.add_event_handler(Events.COMPLETED, self._save)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its epoch; -1 where there is none."""
        if self._engine is None:
            return dict(self._loaded)
        state = self._engine.state
        return {"metric": float(state.best_metric), "epoch": int(state.best_metric_epoch)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :py:meth:`state_dict` gave."""
        self._loaded = {"metric": float(state["metric"]), "epoch": int(state["epoch"])}
        if self._engine is not None:
            self._engine.state.best_metric = self._loaded["metric"]
            self._engine.state.best_metric_epoch = self._loaded["epoch"]

    def _save(self, engine: Engine) -> None:
        name: Any = engine.state.key_metric_name
        value = float(engine.state.metrics[name])
        if math.isnan(value):
            raise ValueError(
                f"`key_metric` must be a number to choose an epoch by, got NaN of {name}: are bags of all classes "
                "among those that are validated?"
            )
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            with atomic_path(self.path) as temporary:
                torch.save(self.network.state_dict(), temporary)
