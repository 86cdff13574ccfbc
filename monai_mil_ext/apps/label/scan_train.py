"""Training task that learns from scan-level labels in MONAI Label."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai_mil_ext.data.models import RECORD_FILE
from monai_mil_ext.utils import RESEARCH_USE, atomic_path, optional_dependency, write_json

from ._monailabel import TrainTask
from .bundle_runner import BundleRunner, device_override
from .errors import http_error, http_error_from
from .scan_labels import label_of

__all__ = ["ScanTrainTask"]

train_test_split = optional_dependency("", "sklearn.model_selection", "train_test_split")

Item = dict[str, Any]


class ScanTrainTask(TrainTask):
    """Training task that runs the ``train`` of a bundle, with the overlay ``scan_labels``, on all labeled scans.

    Requests may set ``max_epochs``, ``val_split`` (fraction of the labeled scans for validation, if there are enough),
    ``pretrained`` (whether to start from the current weights) and ``device``. New weights replace the old ones only
    when training has finished; features of scans are kept for the next training.

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
        """Return the statistics of the last training."""
        try:
            stats: dict[str, Any] = json.loads(self._stats_file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return stats

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Train, and return numbers of scans and metrics."""
        begin = time.perf_counter()
        epochs, fraction = _positive(request, "max_epochs", 50), _val_split(request)
        scans = self._scans(datastore)
        training, held_out = _split(scans, fraction)
        start = self._start() if request.get("pretrained", True) else None
        with TemporaryDirectory() as folder:
            options = {"scans": training, "held_out": held_out, "epochs": epochs, "start_from": start}
            options["class_names"] = self.bundle.class_names  # by which labels are read, so that results have them
            paths = {"ckpt_dir": folder, "output_dir": folder}
            try:
                workflow = self.bundle.run(
                    "train", "train", "scan_labels", **options, **paths, **device_override(request)
                )
            except Exception as error:
                images = [scan["image"] for scan in scans]
                raise http_error_from(error, *images, folder, self.bundle.root) from error
            new = self.bundle.new_weights
            for name in (RECORD_FILE, new.name):
                with atomic_path(new.with_name(name)) as temporary:
                    shutil.copyfile(Path(folder) / name, temporary)
        metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics if held_out else {}
        stats = {
            "use": RESEARCH_USE,
            "scans": len(training),
            "held_out": len(held_out),
            "labels": dict(sorted(Counter(self.bundle.class_names[scan["label"]] for scan in scans).items())),
            "epochs": epochs,
            "metrics": {name: float(value) for name, value in metrics.items()},
            "seconds": round(time.perf_counter() - begin, 1),
        }
        write_json(self._stats_file, stats)
        return stats

    def _start(self) -> str | None:
        """Return the weights to continue from: none that only show how the bundle works."""
        weights = self.bundle.weights
        return str(weights) if weights.is_file() and not self.bundle.is_demonstration else None

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
    case = f"scan_{hashlib.sha256(image.encode()).hexdigest()[:16]}"  # the name may be that of a patient
    return {"case_id": case, "patient": case, "image": path, "label": label}


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
