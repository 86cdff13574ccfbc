"""Training task that learns from scan-level labels in MONAI Label."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai_mil_ext.data.models import RECORD_FILE
from monai_mil_ext.utils import RESEARCH_USE, atomic_path, optional_dependency, write_json

from ._monailabel import TrainTask
from .bundle_runner import BundleRunner, device_override
from .errors import http_error, http_error_from
from .scan_labels import PART, label_of

__all__ = ["ScanTrainTask"]

train_test_split = optional_dependency("", "sklearn.model_selection", "train_test_split")

Item = dict[str, Any]
STALE = 600  # seconds after which a training without a new epoch counts as ended


class ScanTrainTask(TrainTask):
    """Training task that runs the ``train`` of a bundle, with the overlay ``scan_labels``, on all labeled scans.

    Requests may set ``max_epochs``, ``val_split`` (fraction of the labeled scans for validation, if there are enough),
    ``pretrained`` (whether to start from the current weights) and ``device``. New weights replace the old ones only
    when training has finished; features of scans are kept for the next training. The info of each scan says whether it
    was held out.

    Args:
        bundle: bundle of scans.
    """

    def __init__(self, bundle: BundleRunner) -> None:
        super().__init__(f"Train {bundle.name} from labels of scans; {RESEARCH_USE}")
        self.bundle = bundle

    def config(self) -> dict[str, Any]:
        """Return the options of a request and their defaults."""
        return {"max_epochs": 50, "val_split": 0.2, "pretrained": True, "device": ["cuda", "cpu"]}

    def stats(self) -> dict[str, Any]:
        """Return the statistics of the last training, in the words of 3D Slicer and OHIF too.

        While a training runs, ``epoch`` and ``total_epochs`` are those of it, and there is no ``total_time``.
        """
        stats, progress = _read(self._stats_file), _read(self._progress_file)
        if not progress or time.time() - progress["time"] > STALE:
            return stats
        kept = {name: value for name, value in stats.items() if name != "total_time"}
        return {**kept, "epoch": progress["epoch"], "total_epochs": progress["total_epochs"]}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Train, and return numbers of scans and metrics."""
        begin = time.perf_counter()
        epochs, fraction = _positive(request, "max_epochs", 50), _val_split(request)
        scans = self._scans(datastore)
        ids = {_case(image): image for image in datastore.list_images()}
        training, held_out = _split(scans, fraction)
        start = self._start() if request.get("pretrained", True) else None
        with TemporaryDirectory() as folder:
            options = {"scans": training, "held_out": held_out, "epochs": epochs, "start_from": start}
            options["class_names"] = self.bundle.class_names  # by which labels are read, so that results have them
            paths = {"ckpt_dir": folder, "output_dir": folder}
            options |= {**paths, **device_override(request)}
            try:
                with self._progress(epochs) as on_epoch:
                    workflow = self.bundle.run("train", "train", "scan_labels", on_epoch=on_epoch, **options)
            except Exception as error:
                images = [scan["image"] for scan in scans]
                raise http_error_from(error, *images, folder, self.bundle.root) from error
            new = self.bundle.new_weights
            for name in (RECORD_FILE, new.name):
                with atomic_path(new.with_name(name)) as temporary:
                    shutil.copyfile(Path(folder) / name, temporary)
        metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics if held_out else {}
        labels = Counter(self.bundle.class_names[scan["label"]] for scan in scans)
        counts = {"scans": len(training), "held_out": len(held_out), "labels": dict(sorted(labels.items()))}
        metrics = {name: float(value) for name, value in metrics.items()}
        stats = {"use": RESEARCH_USE, **counts, "epochs": epochs, "metrics": metrics}
        stats |= _for_viewers(epochs, metrics, time.perf_counter() - begin)
        write_json(self._stats_file, stats)
        for part, names in (("training", training), ("held out", held_out)):
            for scan in names:
                before = datastore.get_image_info(ids[scan["case_id"]]).get(PART) or {}
                datastore.update_image_info(ids[scan["case_id"]], {PART: {**before, self.bundle.name: part}})
        return stats

    @contextmanager
    def _progress(self, epochs: int) -> Iterator[Callable[[int], None]]:
        """Give a function that notes the epoch where the server, another process, finds it during the training."""
        file = self._progress_file

        def note(epoch: int) -> None:
            write_json(file, {"epoch": epoch, "total_epochs": epochs, "time": time.time()})

        note(0)
        try:
            yield note
        finally:
            file.unlink(missing_ok=True)

    def _start(self) -> str | None:
        """Return the weights to continue from: none that only show how the bundle works."""
        weights = self.bundle.weights
        return str(weights) if weights.is_file() and not self.bundle.is_demonstration else None

    @property
    def _progress_file(self) -> Path:
        return self.bundle.root / "label_progress.json"  # not in models/, whose changes make the server load the model

    @property
    def _stats_file(self) -> Path:
        return self.bundle.weights.with_name("label_stats.json")

    def _scans(self, datastore: Any) -> list[Item]:
        names = self.bundle.class_names
        try:
            labels = {image: label_of(datastore, image, names) for image in sorted(datastore.list_images())}
        except ValueError as error:
            raise http_error(str(error)) from error
        items = [
            _item(image, datastore.get_image_uri(image), label) for image, label in labels.items() if label is not None
        ]
        if len({item["label"] for item in items}) < 2:
            raise http_error(f"labels must include scans of two classes, got {len(items)} labeled scans.")
        return items


def _item(image: str, path: str, label: int) -> Item:
    case = _case(image)
    return {"case_id": case, "patient": case, "image": path, "label": label}


def _case(image: str) -> str:
    """Return a case ID that does not tell the name of the image, which may be that of a patient."""
    return f"scan_{hashlib.sha256(image.encode()).hexdigest()[:16]}"


def _for_viewers(epochs: int, metrics: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """Return what 3D Slicer and OHIF read of a training; without a metric there is no ``best_metric``."""
    times = {"total_time": str(timedelta(seconds=round(seconds))), "seconds": round(seconds, 1)}
    finite = [value for value in metrics.values() if math.isfinite(value)]
    return {**times, "epoch": epochs, "total_epochs": epochs, **({"best_metric": finite[0]} if finite else {})}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _split(scans: Sequence[Item], fraction: float) -> tuple[list[Item], list[Item]]:
    """Split scans deterministically; nothing is held out if a part would lack a class."""
    labels = [scan["label"] for scan in scans]
    fewest = min(Counter(labels).values())
    if fraction == 0 or min(fraction, 1 - fraction) * fewest < 1:
        return list(scans), []
    training, held_out = train_test_split(list(scans), test_size=fraction, stratify=labels, random_state=0)
    return training, held_out


def _positive(request: Mapping[str, Any], name: str, default: int) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise http_error(f"`{name}` must be a positive integer, got {value!r}.")
    return value


def _val_split(request: Mapping[str, Any]) -> float:
    value = request.get("val_split", 0.2)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise http_error(f"`val_split` must be from 0 to below 1, got {value!r}.")
    return float(value)
