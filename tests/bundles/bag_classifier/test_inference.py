"""Tests of the inference of bag_classifier on files that fit and files that do not."""

import csv
import re

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, write_bag
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.small_bags import BUNDLE, infer_bags

F = 8


@pytest.fixture
def infer(monkeypatch, tmp_path):
    """Run the inference with untrained weights, and return the rows of its table."""
    monkeypatch.chdir(BUNDLE)
    models = tmp_path / "m"
    net = ABMIL(F, 2, hidden_size=128)

    def run(source, error=None, level="bag", **override):
        task = {"kind": "classification", "num_classes": 2, "level": level}
        save_model(models, net, sources=[InstanceSource(width=F)], task=task)
        infer_bags(source, models, tmp_path / "out", error, **override)
        table = tmp_path / "out" / "predictions.csv"
        return {row["case_id"]: row for row in csv.DictReader(table.open())} if table.exists() else {}

    return run


def write(path, width=F):
    write_bag(path, {"features": np.ones((3, width), dtype=np.float32)})
    return path


def test_bag_classifier_inference_continues_after_features_of_another_width(infer, tmp_path):
    for name, width in (("a", F), ("b", 2 * F), ("c", F)):
        write(tmp_path / "bags" / f"{name}.h5", width)
    rows = infer(tmp_path / "bags", error="'b' is unreadable: features must have 8 columns, got 16.")
    assert [row["status"][:10] for row in rows.values()] == ["done", "unreadable", "done"]


def test_bag_classifier_inference_continues_after_an_error_of_the_network(infer, tmp_path, monkeypatch):
    real = ABMIL.forward_bag

    def fail(self, x, mask=None):
        if x.shape[1] == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, x, mask)

    monkeypatch.setattr(ABMIL, "forward_bag", fail)
    for name, rows in (("a", 3), ("b", 5), ("c", 3)):
        write_bag(tmp_path / "bags" / f"{name}.h5", {"features": np.ones((rows, F), dtype=np.float32)})
    rows = infer(tmp_path / "bags", error="'b' is failed: OutOfMemoryError: CUDA out of memory")
    assert [row["status"][:6] for row in rows.values()] == ["done", "failed", "done"]


def test_bag_classifier_inference_of_one_file_does_not_use_its_name(infer, tmp_path):
    (case,) = infer(write(tmp_path / "Jane_Doe.h5"))
    assert re.fullmatch("case-[0-9a-f]{12}", case)
    assert list(infer(tmp_path / "Jane_Doe.h5", case_id="c7")) == ["c7"]


def test_bag_classifier_inference_refuses_two_files_of_one_name(infer, tmp_path):
    for name in ("a.h5", "b.h5", "b.npz"):
        (tmp_path / name).touch()
    assert infer(tmp_path, error="must be unique, got 'b' in file 2 (.h5) and file 3 (.npz)") == {}


def test_bag_classifier_inference_finds_the_bags_of_a_table_as_the_training_does(infer, tmp_path):
    for name in ("a.1", "b", "c"):
        write(tmp_path / "deep" / "bags" / f"{name}.h5")
    table = tmp_path / "clam.csv"
    table.write_text("slide_id,label,case_id\na.1,tumor,p\nb,normal,q\nlost,normal,r\n")
    columns = {"columns#bag": "slide_id", "columns#patient": "case_id"}
    rows = infer(table, "'lost' is unreadable: `image` must be the path or the name of a file below `root`", **columns)
    assert {case: row["status"][:10] for case, row in rows.items()} == {
        "a.1": "done",
        "b": "done",
        "lost": "unreadable",
    }


def test_bag_classifier_inference_of_patients(infer, tmp_path):
    for name, value in (("a", 0.0), ("b", 1.0), ("c", 2.0)):
        write_bag(tmp_path / f"{name}.h5", {"features": np.full((3, F), value, dtype=np.float32)})
    write_bag(tmp_path / "ab.h5", {"features": np.repeat([0.0, 1.0], 3)[:, None] + np.zeros((1, F))})
    table = tmp_path / "cohort.csv"
    table.write_text("bag,patient,label\na,p,0\nc,q,1\nb,p,0\n")
    rows = infer(table, level="patient")
    assert [(case, row["num_instances"]) for case, row in rows.items()] == [("p", "6"), ("q", "3")]
    whole = infer(tmp_path / "ab.h5", level="patient", case_id="p")
    assert float(whole["p"]["probability_1"]) == pytest.approx(float(rows["p"]["probability_1"]), abs=1e-5)
    infer(tmp_path, "a table with a patient in every row for level 'patient', got 4 of 4 without", level="patient")
