"""Base class of savers that write a folder of files for each case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from torch import Tensor

from monai_mil_ext.utils import RESEARCH_USE, BagKeys, check_choice, check_name, remove_stale_files, write_json

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

    def attach(self, engine: Engine) -> None:
        """Write after every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the files of the cases of this iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.save({**batch, **output})
            engine.logger.info(f"{batch[BagKeys.CASE_ID]}: written to {self.output_dir.name}; {RESEARCH_USE}")

    def save(self, data: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Write the files of one case; ``about`` has further entries of ``prediction.json``."""
        case = data[BagKeys.CASE_ID]
        self.discard(case)
        folder = self.output_dir / case
        remove_stale_files(folder)
        item = {key: value.detach().cpu() if isinstance(value, Tensor) else value for key, value in data.items()}
        record = {
            "case_id": case,
            "use": RESEARCH_USE,
            **({} if self.settings is None else {"settings": self.settings}),
            **(about or {}),
            "probability": item["pred"].tolist(),
            "prediction": int(item["pred"].argmax()),
        }
        write_json(folder / PREDICTION, {**record, **self._write(folder, item)})

    def discard(self, case_id: str) -> None:
        """Remove the files of a case that this or an earlier run has written."""
        check_name(case_id=case_id)
        for name in (PREDICTION, *(case_id + ending for ending in self.endings)):
            (self.output_dir / case_id / name).unlink(missing_ok=True)

    def options(self) -> dict[str, Any]:
        """Return all options that affect the content of the files; ``settings`` are compared on their own."""
        return {name: value for name, value in vars(self).items() if name not in ("output_dir", "settings")}

    def check(self, item: Mapping[str, Any]) -> None:  # noqa: B027 - a saver need not have such options
        """Raise ``ValueError`` if an option does not fit the prediction of any item, such as this one."""

    def prediction_file(self, case_id: str) -> Path:
        """Return the path of the prediction of a case; once it exists, so do all other files of the case."""
        return self.output_dir / case_id / PREDICTION

    @abstractmethod
    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        """Write all other files of an item, whose tensors are on the CPU, and return the rest of the record."""
