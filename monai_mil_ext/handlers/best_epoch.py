"""Handler that saves the weights of the best epoch of a resumable run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from monai_mil_ext.utils import check_local, save_tensors

__all__ = ["BestEpochSaver"]


class BestEpochSaver:
    """Handler that saves the weights of ``network`` after each validation with the best key metric so far.

    MONAI's ``CheckpointSaver`` loses the best value when a run is killed, so that the resumed run overwrites the best
    weights in its first epoch. This handler has a state for :py:class:`TrainingState`, which it also restores in the
    evaluator. The file is written atomically, by the first process only.

    Args:
        save_dir: folder of the file.
        network: network whose weights are saved, without its wrapper for distributed training.
        filename: name of the file.

    Raises:
        ValueError: if the key metric is NaN, for example an AUROC if all bags are of one class.
        OSError: if the disk is full or the file can't be written.

    Example:
        >>> BestEpochSaver("models", nn.Linear(2, 2)).state_dict()
        {'metric': -1.0, 'epoch': -1}
    """

    def __init__(self, save_dir: str, network: nn.Module, filename: str = "model.pt") -> None:
        check_local(save_dir=save_dir)
        self.path = Path(save_dir) / filename
        self.network = network
        self._engine: Engine | None = None
        self._loaded: Mapping[str, Any] = {"metric": -1.0, "epoch": -1}

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI evaluator with a key metric."""
        self._engine = engine
        engine.add_event_handler(Events.COMPLETED, self._save)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and its epoch, or -1."""
        if self._engine is None:
            return dict(self._loaded)
        state = self._engine.state
        return {"metric": float(state.best_metric), "epoch": int(state.best_metric_epoch)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that :py:meth:`state_dict` returned."""
        self._loaded = {"metric": float(state["metric"]), "epoch": int(state["epoch"])}
        if self._engine is not None:
            self._engine.state.best_metric = self._loaded["metric"]
            self._engine.state.best_metric_epoch = self._loaded["epoch"]

    def _save(self, engine: Engine) -> None:
        name: Any = engine.state.key_metric_name
        value = float(engine.state.metrics[name])
        if math.isnan(value):
            raise ValueError(
                f"`key_metric` must be a number to choose an epoch by, got NaN of {name}: does the validation "
                "set have bags of all classes?"
            )
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            save_tensors(self.path, self.network.state_dict())
