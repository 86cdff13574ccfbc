"""Base class of savers that write a folder of files for each case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from torch import Tensor

from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    BagStatus,
    check_choice,
    check_name,
    remove_stale_files,
    write_json,
)

__all__ = ["ResultsSaver"]

PREDICTION = "prediction.json"


class ResultsSaver(ABC):
    """Base class of savers that write the files of a case into ``<output_dir>/<case_id>``.

    A saver only writes: volumes, maps, ranks and tiles are computed by transforms in the postprocessing of the engine.
    ``prediction.json`` is written last, so a folder that has it is complete. Files of an earlier run are removed first.
    The files hold the case id, and no name or path of an image.

    Args:
        output_dir: parent of the folders.
        pictures: names of the pictures to write.
        settings: fingerprint of network and preprocessing, for ``prediction.json``.
    """

    endings: ClassVar[tuple[str, ...]]  # suffixes of all files that begin with the case id
    choices: ClassVar[tuple[str, ...]]  # names of pictures

    def __init__(self, output_dir: str, pictures: Sequence[str], settings: str | None = None) -> None:
        for picture in pictures:
            check_choice("pictures", picture, self.choices)
        self.output_dir = Path(output_dir)
        self.pictures = tuple(pictures)
        self.settings = settings
        self._incomplete: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Write after every iteration of ``engine``, and raise at the end of a run if a requested file is missing."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._check_complete)

    def __call__(self, engine: Engine) -> None:
        """Write the files of the cases of this iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            status = self.status(self.save({**batch, **output}))
            engine.logger.info(f"{batch[BagKeys.CASE_ID]}: {status}; {RESEARCH_USE}")
            if status != BagStatus.DONE:
                self._incomplete.append(f"{batch[BagKeys.CASE_ID]!r} is {status}")

    def _check_complete(self, engine: Engine) -> None:
        incomplete, self._incomplete = self._incomplete, []
        if incomplete:
            raise RuntimeError("\n  ".join(["every case must get all results, got some without:", *incomplete]))

    def status(self, record: Mapping[str, Any]) -> str:
        """Return the status of a case from its ``prediction.json``: ``done``, and what of its results is missing."""
        return str(BagStatus.DONE)

    def save(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files of one case, and return the content of its ``prediction.json``."""
        case = data[BagKeys.CASE_ID]
        check_name(case_id=case)
        folder = self.output_dir / case
        for name in (PREDICTION, *(case + ending for ending in self.endings)):
            (folder / name).unlink(missing_ok=True)
        remove_stale_files(folder)
        item = {key: value.detach().cpu() if isinstance(value, Tensor) else value for key, value in data.items()}
        record = {
            "case_id": case,
            "use": RESEARCH_USE,
            **({} if self.settings is None else {"settings": self.settings}),
            "probability": item["pred"].tolist(),
            "prediction": _predicted_class(item["pred"]),
        }
        record |= self._write(folder, item)
        write_json(folder / PREDICTION, record)
        return record

    def prediction_file(self, case_id: str) -> Path:
        """Return the path of the prediction of a case; once it exists, so do all other files of the case."""
        return self.output_dir / case_id / PREDICTION

    @abstractmethod
    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        """Write all other files of an item, whose tensors are on the CPU, and return the rest of the record."""


def _predicted_class(pred: Tensor) -> int:
    """Return the class of the highest of the probabilities (C,), or of the probability (1,) of the positive class."""
    return int(pred[0] >= 0.5) if len(pred) == 1 else int(pred.argmax())
