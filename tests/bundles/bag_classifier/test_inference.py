"""Tests of the inference of bag_classifier on files that fit and files that do not."""

import csv
import re

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, write_bag
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.small_bags import BUNDLE
from tests.workflows import causes, configs_of, open_workflow

F = 8


@pytest.fixture
def infer(monkeypatch, tmp_path):
    """Run the inference with untrained weights, and return the rows of its table."""
    monkeypatch.chdir(BUNDLE)
    models = tmp_path / "m"
    save_model(models, ABMIL(F, 2, hidden_size=128), sources=[InstanceSource(width=F)])

    def run(source, error=None, **override):
        places = {"input": str(source), "ckpt_dir": str(models), "output_dir": str(tmp_path / "out")}
        workflow = open_workflow(*configs_of("inference"), kind="infer", **places, **override)
        if error is None:
            workflow.run()
        else:
            with pytest.raises(RuntimeError, match="Failed to") as raised:
                workflow.run()
            assert error in causes(raised.value)
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
