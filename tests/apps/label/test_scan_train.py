"""Tests of the training task of scans, without MONAI Label."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_mil_ext.apps.label import ScanTrainTask

from .server_parts import Bundle, Datastore, without_init


class TrainingBundle(Bundle):
    """Bundle that trains at once: it writes weights and has one metric."""

    def run(self, kind, *configs, on_epoch, **options):
        self.calls.append((kind, configs, options))
        on_epoch(options["epochs"] - 1)
        self.during = json.loads((self.root / "label_progress.json").read_text())
        self.seen = ScanTrainTask.stats(without_init(ScanTrainTask, bundle=self))
        if self.error:
            raise self.error
        for name in ("model.pt", "model.json"):
            Path(options["ckpt_dir"], name).write_text("new")
        engine = SimpleNamespace(state=SimpleNamespace(metrics={"bag_auroc": 0.75}))
        return SimpleNamespace(parser=SimpleNamespace(get_parsed_content=lambda name: engine))


@pytest.fixture
def store(tmp_path):
    store = Datastore(tmp_path, images=[f"i{n}" for n in range(10)])
    for n in range(9):
        store.infos[f"i{n}"]["bag_label"] = n % 2
    return store


def make_task(folder, **options):
    (folder / "models").mkdir()
    return without_init(ScanTrainTask, bundle=TrainingBundle(folder, **options))


def test_scan_train_task_trains_on_labeled_scans_and_replaces_the_weights(tmp_path, store):
    task = make_task(tmp_path)
    stats = task({"max_epochs": 3, "val_split": 0.25}, store)
    (kind, configs, options) = task.bundle.calls[0]
    assert (kind, configs, options["epochs"], options["start_from"]) == ("train", ("train", "scan_labels"), 3, None)
    assert options["class_names"] == task.bundle.class_names  # by which the labels are read
    scans = options["scans"] + options["held_out"]
    assert sorted(Path(scan["image"]).stem for scan in scans) == [f"i{n}" for n in range(9)]
    assert all(scan["label"] == int(Path(scan["image"]).stem[1]) % 2 for scan in scans)
    assert len({scan["case_id"] for scan in scans}) == 9
    assert {scan["label"] for scan in options["held_out"]} == {0, 1}
    assert (stats["scans"], stats["held_out"]) == (6, 3)
    assert (stats["labels"], stats["metrics"]) == ({"benign": 5, "malignant": 4}, {"bag_auroc": 0.75})
    assert task.bundle.weights.read_text() == "new"
    assert task.bundle.weights.with_name("model.json").read_text() == "new"
    assert task.stats() == stats
    held_out = {Path(scan["image"]).stem for scan in options["held_out"]}
    parts = {image: info.get("part", {}).get("bundle") for image, info in store.infos.items()}
    assert {image for image, part in parts.items() if part == "held out"} == held_out
    assert [image for image, part in parts.items() if part is None] == ["i9"]


def test_scan_train_task_has_the_numbers_that_viewers_read(tmp_path, store):
    task = make_task(tmp_path)
    first = task({"max_epochs": 3, "val_split": 0.25}, store)
    assert (first["epoch"], first["total_epochs"], first["best_metric"]) == (3, 3, 0.75)
    assert re.fullmatch(r"\d:\d\d:\d\d", first["total_time"])
    assert (task.bundle.during["epoch"], task.bundle.during["total_epochs"]) == (2, 3)
    second = task({"max_epochs": 9, "val_split": 0}, store)
    assert "best_metric" not in second  # 3D Slicer takes null for a number
    assert (task.bundle.seen["epoch"], task.bundle.seen["total_epochs"]) == (8, 9)
    assert "total_time" not in task.bundle.seen
    assert task.bundle.seen["best_metric"] == 0.75  # of the training before
    assert task.stats() == second


def test_scan_train_task_forgets_the_progress_of_a_training_that_was_killed(tmp_path, store):
    task = make_task(tmp_path)
    (tmp_path / "label_progress.json").write_text(
        json.dumps({"epoch": 3, "total_epochs": 9, "time": time.time() - 601})
    )
    assert task.stats() == {}


def test_scan_train_task_holds_nothing_out_of_few_scans(tmp_path, store):
    task = make_task(tmp_path)
    task.bundle.weights.write_text("old")
    for n in range(2, 10):
        store.infos[f"i{n}"].pop("bag_label", None)
    stats = task({}, store)
    assert (stats["scans"], stats["held_out"], stats["metrics"]) == (2, 0, {})
    assert task.bundle.calls[0][2]["start_from"] == str(task.bundle.weights)
    task({"pretrained": False}, store)
    assert task.bundle.calls[1][2]["start_from"] is None


def test_scan_train_task_does_not_continue_from_the_weights_of_the_bundle(tmp_path, store):
    task = make_task(tmp_path)
    task.bundle.weights.write_text("shipped")
    task.bundle.is_demonstration, task.bundle.new_weights = True, tmp_path / "models" / "trained" / "model.pt"
    task({}, store)
    assert task.bundle.calls[0][2]["start_from"] is None
    assert task.bundle.weights.read_text() == "shipped"
    assert (tmp_path / "models" / "trained" / "model.json").read_text() == "new"


@pytest.mark.parametrize(
    ("request_options", "match"),
    [
        ({"max_epochs": "$exit()"}, r"`max_epochs` must be a positive integer, got '\$exit\(\)'"),
        ({"max_epochs": True}, "`max_epochs` must be a positive integer, got True"),
        ({"val_split": 1}, "`val_split` must be from 0 to below 1, got 1"),
        ({"device": "$exit()"}, r"`device` must be cpu or cuda, got '\$exit\(\)'"),
    ],
)
def test_scan_train_task_refuses_invalid_requests(tmp_path, store, http_errors, request_options, match):
    with pytest.raises(http_errors, match=match):
        make_task(tmp_path)(request_options, store)
    assert not (tmp_path / "models" / "model.pt").exists()


def test_scan_train_task_needs_labels_of_two_classes(tmp_path, store, http_errors):
    for info in store.infos.values():
        info.pop("bag_label", None)
    task = make_task(tmp_path)
    store.infos["i0"]["bag_label"] = 1
    with pytest.raises(http_errors, match="labels must include scans of two classes, got 1 labeled scans"):
        task({}, store)
    store.infos["i1"]["bag_label"] = "unknown"
    with pytest.raises(http_errors, match="`bag_label` must be a class number below 2"):
        task({}, store)


def test_scan_train_task_keeps_the_weights_after_an_error(tmp_path, store, http_errors):
    task = make_task(tmp_path, error=ValueError(f"cannot read {tmp_path}/i1.nii"))
    task.bundle.weights.write_text("old")
    with pytest.raises(http_errors, match=r"^ValueError: cannot read [./]+$"):
        task({}, store)
    assert task.bundle.weights.read_text() == "old"
    assert task.stats() == {}
    assert not (tmp_path / "label_progress.json").exists()
    assert task.config()["max_epochs"] == 50
