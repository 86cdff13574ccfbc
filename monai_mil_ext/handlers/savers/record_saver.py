"""Saver of the record of a model beside its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_mil_ext.data import InstanceSource
from monai_mil_ext.data.models import RECORD_FILE, ModelRecord, file_sha256
from monai_mil_ext.data.models.network_options import check_same_options
from monai_mil_ext.utils import SourceMismatchError

__all__ = ["ModelRecordSaver"]


class ModelRecordSaver:
    """Handler that keeps ``model.json`` beside the weights: written whenever their file has changed.

    Attach it to the trainer after all handlers that write weights. In a distributed run the first process writes. Save
    it with the state of a training: a run is not resumed with another network, whose weights may have the same shapes,
    or with instances of another source.

    Args:
        record: record of the model without the hashes of its weights, which this handler adds.
        folder: folder of the weights.
        weights: name of the file of weights.
        calibration: function that returns values of the calibration, such as the ``temperature``, when the record is
            written.

    Example:
        >>> ModelRecordSaver(ModelRecord("tumor"), "models").path.name
        'model.json'
    """

    def __init__(
        self,
        record: ModelRecord,
        folder: str | os.PathLike[str],
        weights: str = "model.pt",
        calibration: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.record = record
        self.path = Path(folder) / RECORD_FILE
        self.weights = Path(folder) / weights
        self.calibration = calibration
        self._written: tuple[int, int, int] | None = None

    def attach(self, engine: Engine) -> None:
        """Write after every epoch of ``engine`` that has changed the weights, and at its end."""
        engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self.write)

    def state_dict(self) -> dict[str, Any]:
        """Return the options of the network, the sources of the instances and the names of the classes."""
        sources = [source.to_values() for source in self.record.sources]
        return {"options": dict(self.record.network.get("options", {})), "sources": sources, "classes": self._classes()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if the resumed run had another network, other instances or other classes."""
        check_same_options(state["options"], self.record.network.get("options", {}))
        for values, source in zip(state["sources"], self.record.sources, strict=False):
            difference = InstanceSource.from_values(values).compare(source)
            if difference:
                raise SourceMismatchError(f"a training must go on as it began: {difference.message()}")

        if state.get("classes") and self._classes() and state["classes"] != self._classes():
            raise ValueError(f"`class_names` must be {state['classes']}, as before, got {self._classes()}.")

    def _classes(self) -> list[str]:
        return list(self.record.class_names or ())

    def write(self, engine: Engine | None = None) -> None:
        """Write the record, if the file of weights exists and has changed since."""
        if idist.get_rank() != 0 or not self.weights.is_file():
            return
        state = self.weights.stat()
        key = (state.st_mtime_ns, state.st_size, state.st_ino)
        if key == self._written:
            return
        weights = [{"file": self.weights.name, "sha256": file_sha256(self.weights)}]
        if not self._describes(weights):  # else the run was resumed, and nothing has changed
            calibration = self.record.calibration if self.calibration is None else self.calibration()
            replace(self.record, weights=weights, calibration=calibration).write(self.path)
        self._written = key

    def _describes(self, weights: Sequence[Mapping[str, str]]) -> bool:
        try:
            return list(ModelRecord.read(self.path).weights) == weights
        except (FileNotFoundError, ValueError):
            return False
