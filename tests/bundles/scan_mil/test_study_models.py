"""Tests of the inference of scan_mil with the model of a study, for every task, in the bundle and in MONAI Label."""

import csv
import json
import shutil

import pytest
import torch

from monai_mil_ext.apps.label import BundleRunner, ScanInferTask
from monai_mil_ext.data import ScoreBands
from tests.apps.label.server_parts import without_init
from tests.bundles.conftest import BUNDLE
from tests.bundles.study_models import COLUMNS, NAMES, TASKS, TITLES, average, write_models
from tests.workflows import content

F = 64


def features_of(workflow):
    return torch.as_tensor(content(workflow, "dataset")[0]["image"]).float()


@pytest.mark.parametrize("name", TASKS)
def test_scan_mil_inference_averages_the_networks_of_a_study(start, digits, tmp_path, name):
    nets = write_models(tmp_path / "m", name, F)
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "dataset_dir": str(digits)}
    workflow = start(
        "inference", "digits", **paths, input=str(digits / "digits_0.nii.gz"), case_id="c", pictures=["html"]
    )
    workflow.run()
    record = json.loads((tmp_path / "out" / "c" / "prediction.json").read_text())
    output = record[NAMES.get(name, "probability")]
    assert (output if isinstance(output, list) else [output]) == pytest.approx(
        average(name, nets, features_of(workflow)), abs=1e-6
    )
    assert record["task"] == TASKS[name].kind
    page = (tmp_path / "out" / "c" / "c.html").read_text()
    assert TITLES[name] in page
    assert ("probability" in page) == (NAMES.get(name) is None) or name == "multilabel"


@pytest.mark.parametrize("name", ["binary", "survival", "cox"])
def test_scan_mil_cohort_inference_writes_the_columns_of_the_task(start, digits, tmp_path, name):
    write_models(tmp_path / "m", name, F, threshold=0.001 if name == "binary" else None)
    (tmp_path / "scans").mkdir()
    shutil.copy(digits / "digits_0.nii.gz", tmp_path / "scans" / "c.nii.gz")
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "dataset_dir": str(digits)}
    start("inference", "digits", "cohort_inference", **paths, cohort=str(tmp_path / "scans")).run()
    with (tmp_path / "out" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [key for key in row if key.split("_")[0] in {"probability", *NAMES.values()}] == COLUMNS[name]
    assert row.get("predicted_class") == ("malignant" if name == "binary" else None)
    index = (tmp_path / "out" / "index.html").read_text()
    assert {"binary": "probability of malignant", "survival": "survival 6", "cox": ">risk"}[name] in index


@pytest.mark.parametrize("name", TASKS)
def test_the_scan_task_of_monai_label_answers_with_the_model_of_a_study(digits, tmp_path, name):
    for part in ("configs", "scripts"):
        shutil.copytree(BUNDLE / part, tmp_path / "b" / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tmp_path / "b" / "configs" / "digits.yaml", tmp_path / "b" / "configs" / "site.yaml")
    write_models(tmp_path / "b" / "models", name, F)
    task = without_init(ScanInferTask, bundle=BundleRunner(tmp_path / "b"), bands=ScoreBands(), labels={})
    params = task({"image": str(digits / "digits_0.nii.gz"), "result_write_to_file": False})[1]
    labels = {
        "regression": ["value"], "cox": ["risk"], "survival": ["survival 6", "survival 12.5", "survival inf"],
    }.get(name, list(TASKS[name].class_names))  # fmt: skip
    assert [entry["label"] for entry in params["prediction"]] == labels
    assert (params["uncertainty"] is None) == (name in NAMES)
    assert json.loads(json.dumps(params)) == params
