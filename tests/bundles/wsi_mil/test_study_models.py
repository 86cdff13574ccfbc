"""Tests of the inference of wsi_mil with the model of a study, for every task, in the bundle and in MONAI Label."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.label import BundleRunner, SlideInferTask
from tests.apps.label.server_parts import without_init
from tests.bundles.study_models import COLUMNS, NAMES, TASKS, average, write_models
from tests.bundles.wsi import BUNDLES, F, start, write_features

FEATURES = np.random.default_rng(0).normal(size=(6, F)).astype(np.float32)


@pytest.mark.parametrize("name", TASKS)
def test_wsi_mil_inference_averages_the_networks_of_a_study(tmp_path, name):
    nets = write_models(tmp_path / "m", name, F, threshold=0.001 if name == "binary" else None)
    write_features(tmp_path / "in" / "a.h5", FEATURES)
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "input": str(tmp_path / "in")}
    start("inference", kind="infer", **paths, pictures=[]).run()
    with (tmp_path / "out" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    columns = [key for key in row if key.split("_")[0] in {"probability", *NAMES.values()}]
    assert columns == COLUMNS[name]
    expected = average(name, nets, torch.from_numpy(FEATURES))
    assert [float(row[column]) for column in columns] == pytest.approx(expected, abs=1e-6)
    if name == "binary":
        assert row["predicted_class"] == "malignant"
    record = json.loads((tmp_path / "out" / row["case_id"] / "prediction.json").read_text())
    assert (record["task"], record.get("bin_edges")) == (
        TASKS[name].kind, [6.0, 12.5, None] if name == "survival" else None
    )  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_the_slide_task_of_monai_label_answers_with_the_model_of_a_study(tmp_path, name):
    shutil.copytree(BUNDLES / "wsi_mil" / "configs", tmp_path / "b" / "configs")
    nets = write_models(tmp_path / "b" / "models", name, F)
    path = write_features(tmp_path / "a.h5", FEATURES)
    task = without_init(SlideInferTask, bundle=BundleRunner(tmp_path / "b"), labels={"tiles": 1})
    params = task({"image": str(path), "output": "json"})[1]
    scores = [entry["score"] for entry in params["prediction"]]
    assert scores == pytest.approx(average(name, nets, torch.from_numpy(FEATURES)), abs=1e-6)
    assert (params["uncertainty"] is None) == (name in NAMES)
