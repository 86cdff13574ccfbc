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
UNKNOWN = "unknown"
UNCHECKED = "not checked: no transform compared the input with that of the training"
HASH_DIGITS = 12


class ResultsSaver(ABC):
    """Base class of savers that write the files of a case into ``<output_dir>/<case_id>``.

    A saver only writes: volumes, maps, ranks and tiles are computed by transforms in the postprocessing of the engine.
    ``prediction.json`` is written last, so a folder that has it is complete. Files of an earlier run are removed first.
    The files hold the case id, and no name or path of an image.

    Args:
        output_dir: parent of the folders.
        pictures: names of the pictures to write.
        settings: fingerprint of network and preprocessing, for ``prediction.json``.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.
    """

    endings: ClassVar[tuple[str, ...]]  # suffixes of all files that begin with the case id
    choices: ClassVar[tuple[str, ...]]  # names of pictures

    def __init__(
        self,
        output_dir: str,
        pictures: Sequence[str],
        settings: str | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        for picture in pictures:
            check_choice("pictures", picture, self.choices)
        self.output_dir = Path(output_dir)
        self.pictures = tuple(pictures)
        self.settings = settings
        self.model = None if model is None else dict(model)

    def attach(self, engine: Engine) -> None:
        """Write after every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the files of the cases of this iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.save({**batch, **output})
            engine.logger.info(f"{batch[BagKeys.CASE_ID]}: written to {self.output_dir.name}; {RESEARCH_USE}")

    def save(self, data: Mapping[str, Any]) -> None:
        """Write the files of one case."""
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
            **self.provenance(item),
            "probability": item["pred"].tolist(),
            "prediction": int(item["pred"].argmax()),
        }
        write_json(folder / PREDICTION, {**record, **self._write(folder, item)})

    def provenance(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return what each result states: the ``model``, and whether the input is as in its training."""
        check = item.get(BagKeys.SOURCE_CHECK, None if self.model is None else UNCHECKED)
        return {
            **({} if self.model is None else {"model": self.model}),
            **({} if check is None else {str(BagKeys.SOURCE_CHECK): check}),
        }

    def note(self, item: Mapping[str, Any]) -> str:
        """Describe the model in a line for pictures: name, version, first digits of its hash, and ``source_check``.

        Returns:
            The line, or an empty string without ``model``.
        """
        if self.model is None:
            return ""
        name, version, sha256 = (self.model.get(key) for key in ("name", "version", "sha256"))
        hashes = [sha256] if isinstance(sha256, str) else list(sha256 or ())
        parts = [f"{name} {version}"] if name else []
        parts += [f"weights {' '.join(value[:HASH_DIGITS] for value in hashes)}"] if hashes else []
        is_unknown = self.model.get("trained_on") == UNKNOWN
        check = f"trained on: {UNKNOWN}" if is_unknown else self.provenance(item)[str(BagKeys.SOURCE_CHECK)]
        return f"{', '.join(parts) or 'model'}; {check}"

    def prediction_file(self, case_id: str) -> Path:
        """Return the path of the prediction of a case; once it exists, so do all other files of the case."""
        return self.output_dir / case_id / PREDICTION

    @abstractmethod
    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        """Write all other files of an item, whose tensors are on the CPU, and return the rest of the record."""
