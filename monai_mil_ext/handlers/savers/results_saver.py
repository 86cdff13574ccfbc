"""Base class of savers that write a folder of files for each case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from torch import Tensor

from monai_mil_ext.transforms.bags.input_facts import input_facts
from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    BagStatus,
    check_choice,
    check_class_names,
    check_name,
    class_probabilities,
    format_prediction,
    optional_dependency,
    remove_stale_files,
    write_json,
)
from monai_mil_ext.utils.files import remove_file
from monai_mil_ext.utils.probabilities import TASKS
from monai_mil_ext.utils.remote import as_path

from .class_columns import class_columns, output_entry
from .instance_set import INSTANCE_SET, instance_set
from .model_columns import UNKNOWN, short_hash
from .thresholds import at_operating_points, threshold_text

__all__ = ["ResultsSaver"]

matplotlib = optional_dependency("figures", "matplotlib")
PREDICTION = "prediction.json"
UNCHECKED = "not checked: no transform compared the input with that of the training"


class ResultsSaver(ABC):
    """Base class of savers that write the files of a case into ``<output_dir>/<case_id>``.

    A saver only writes: volumes, maps, ranks and tiles are computed by transforms in the postprocessing of the engine.
    ``prediction.json`` is written last, so a folder that has it is complete. Files of an earlier run are removed first.
    The files hold the case id, and no name or path of an image.

    Args:
        output_dir: parent of the folders, or its address in an object store.
        pictures: names of the pictures to write.
        settings: fingerprint of network and preprocessing, for ``prediction.json``.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.
        class_names: names of the C classes.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.

    Raises:
        ValueError: when an option is not allowed, a case id can't be a file name, ``pred`` (C,) are not probabilities
            of the task, such as logits, or ``class_names`` and classes differ in number.
    """

    endings: ClassVar[tuple[str, ...]]  # suffixes of all files that begin with the case id
    choices: ClassVar[tuple[str, ...]]  # names of pictures
    names: ClassVar[tuple[str, str]] = ("instance", "bag")  # in sentences

    def __init__(
        self,
        output_dir: str,
        pictures: Sequence[str],
        settings: str | None = None,
        model: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        task: str = "classification",
    ) -> None:
        check_choice("task", task, TASKS)
        for picture in pictures:
            check_choice("pictures", picture, self.choices)
        if pictures:
            _ = matplotlib.__version__  # so that a missing package is said before the first case
        self.output_dir = as_path(output_dir)
        self.pictures = tuple(pictures)
        self.settings = settings
        self.model = None if model is None else dict(model)
        self.class_names = None if class_names is None else tuple(map(str, class_names))
        self.task = task
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

    def is_complete(self, record: Mapping[str, Any]) -> bool:
        """Return whether the results of an earlier run, with the same options, need nothing more."""
        return True

    def save(self, data: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the files of one case, and return the content of its ``prediction.json``.

        Args:
            data: item of the case.
            about: further entries of ``prediction.json``.
        """
        case = data[BagKeys.CASE_ID]
        self.discard(case)
        folder = self.output_dir / case
        remove_stale_files(folder)
        item = {key: value.detach().cpu() if isinstance(value, Tensor) else value for key, value in data.items()}
        item["pred"] = class_probabilities(item["pred"], self.task)
        points = at_operating_points(item["pred"].tolist(), self.class_names, self.operating_points)
        record = {
            "case_id": case,
            "use": RESEARCH_USE,
            **({} if self.settings is None else {"settings": self.settings}),
            **(about or {}),
            **input_facts(item),
            **self.provenance(item),
            **output_entry(item["pred"].tolist(), self.task, self.class_names, self.operating_points, self.bin_edges),
            **self.classes(item),
            **({"operating_points": points} if points else {}),
        }
        chosen = self.instance_set(item)
        if chosen:
            item[INSTANCE_SET] = record[INSTANCE_SET] = chosen
        record |= self._write(folder, item)
        write_json(folder / PREDICTION, record)
        return record

    def provenance(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return what each result states: the ``model``, and whether the input is as in its training."""
        check = item.get(BagKeys.SOURCE_CHECK, None if self.model is None else UNCHECKED)
        return {
            **({} if self.model is None else {"model": self.model}),
            **({} if check is None else {str(BagKeys.SOURCE_CHECK): check}),
        }

    def classes(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names of the classes and the name of the predicted one, if they are known."""
        if self.class_names is None:
            return {}
        check_class_names(self.class_names, len(item["pred"]))
        columns = class_columns(item["pred"].tolist(), self.class_names, self.task, self.operating_points)
        named = {key: columns[key] for key in ("predicted_class",) if key in columns}
        return {"class_names": list(self.class_names), **named}

    def instance_set(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the instances that hold a lesion with a stated probability, if the model has a calibration of them."""
        record = (self.model or {}).get(INSTANCE_SET)
        if record is None or BagKeys.SCORES not in item:
            return {}
        return instance_set(item, record, str(item.get(BagKeys.SOURCE_CHECK, "")), self.names_of(item))

    def names_of(self, item: Mapping[str, Any]) -> tuple[str, str]:
        """Return the name of an instance and of a bag, in sentences on an item."""
        return self.names

    @property
    def operating_points(self) -> Sequence[Mapping[str, Any]]:
        """Operating points of the model; the first one of a class decides, see ``prediction``."""
        return (self.model or {}).get("operating_points", ())

    @property
    def bin_edges(self) -> Sequence[float | None]:
        """Ends of the time bins of a model of survival, if they are known."""
        return (self.model or {}).get("bin_edges", ())

    def prediction(self, item: Mapping[str, Any]) -> str:
        """Describe the prediction for titles: probability or value, and the threshold with the class it leads to."""
        output = item["pred"].tolist()
        threshold = threshold_text(output, self.task, self.class_names, self.operating_points)
        text = format_prediction(output, self.task, self.class_names, self.bin_edges)
        return f"{text} ({threshold})" if threshold else text

    def note(self, item: Mapping[str, Any]) -> str:
        """Describe the model in a line for pictures: name, version, first digits of its hash, and ``source_check``.

        Returns:
            The line, or an empty string without ``model``.
        """
        if self.model is None:
            return ""
        name, version, hashes = self.model.get("name"), self.model.get("version"), short_hash(self.model.get("sha256"))
        parts = [f"{name} {version}"] if name else []
        parts += [f"weights {hashes}"] if hashes else []
        is_unknown = self.model.get("trained_on") == UNKNOWN
        check = f"trained on: {UNKNOWN}" if is_unknown else self.provenance(item)[str(BagKeys.SOURCE_CHECK)]
        return f"{', '.join(parts) or 'model'}; {check}"

    def discard(self, case_id: str) -> None:
        """Remove the files of a case that this or an earlier run has written."""
        check_name(case_id=case_id)
        for name in (PREDICTION, *(case_id + ending for ending in self.endings)):
            remove_file(self.output_dir / case_id / name)

    def options(self) -> dict[str, Any]:
        """Return all options that affect the content of the files; ``settings`` are compared on their own."""
        options = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {name: value for name, value in options.items() if name not in ("output_dir", "settings")}

    def check(self, item: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if an option does not fit the prediction of any item, such as this one."""
        self.classes(item)

    def prediction_file(self, case_id: str) -> Path:
        """Return the path of the prediction of a case; once it exists, so do all other files of the case."""
        return self.output_dir / case_id / PREDICTION

    @abstractmethod
    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        """Write all other files of an item, whose tensors are on the CPU, and return the rest of the record."""
