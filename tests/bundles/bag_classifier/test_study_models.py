"""Tests of the inference and the export of bag_classifier with the model of a study, for every task."""

import csv

import numpy as np
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export

from monai_mil_ext.data import write_bag
from tests.bundles.small_bags import BUNDLE
from tests.bundles.study_models import COLUMNS, NAMES, TASKS, average, write_models
from tests.workflows import configs_of, open_workflow

F = 8
BAG = np.random.default_rng(0).normal(size=(5, F)).astype(np.float32)


@pytest.fixture
def infer(monkeypatch, tmp_path):
    """Run the inference with the model of a study, and return the row of its table and the networks of its folds."""
    monkeypatch.chdir(BUNDLE)

    def run(name, **values):
        nets = write_models(tmp_path / "m", name, F, **values)
        write_bag(tmp_path / "bags" / "a.h5", {"features": BAG})
        places = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "input": str(tmp_path / "bags")}
        open_workflow(*configs_of("inference"), kind="infer", **places).run()
        with (tmp_path / "out" / "predictions.csv").open() as table:
            (row,) = csv.DictReader(table)
        return row, nets

    return run


@pytest.mark.parametrize("name", TASKS)
def test_bag_classifier_inference_averages_the_networks_of_a_study(infer, tmp_path, name):
    row, nets = infer(name)
    assert row["status"] == "done"
    output = [column for column in row if column.split("_")[0] in {"probability", *NAMES.values()}]
    assert output == COLUMNS[name]
    expected = average(name, nets, torch.from_numpy(BAG))
    assert [float(row[column]) for column in output] == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        attention = torch.stack([net.forward_bag(torch.from_numpy(BAG)[None]).attention for net in nets]).mean(0)
    with (tmp_path / "out" / "instances.csv").open() as table:
        written = [float(line["attention"]) for line in csv.DictReader(table)]
    assert written == pytest.approx(attention.flatten().tolist(), abs=1e-6)


@pytest.mark.parametrize(("threshold", "predicted"), [(0.001, "malignant"), (0.999, "benign")])
def test_bag_classifier_inference_predicts_at_the_threshold_of_the_study(infer, threshold, predicted):
    row, _ = infer("binary", threshold=threshold)
    assert row["predicted_class"] == predicted


@pytest.mark.parametrize("name", TASKS)
def test_the_model_of_a_study_is_exported_to_torchscript(infer, tmp_path, name):
    _, nets = infer(name)
    file, ckpt = tmp_path / "model.ts", str(tmp_path / "m" / "model.pt")
    export = {"config_file": configs_of("inference"), "meta_file": "configs/metadata.json", "net_id": "network_def"}
    ckpt_export(filepath=str(file), ckpt_file=ckpt, ckpt_dir=str(tmp_path / "m"), **export)
    with torch.no_grad():
        logits = torch.jit.load(file)(torch.from_numpy(BAG)[None])
    assert logits.shape == (1, TASKS[name].num_logits)
    if name in ("regression", "cox"):
        assert logits[0].tolist() == pytest.approx(average(name, nets, torch.from_numpy(BAG)), abs=1e-5)


def test_the_model_of_a_study_is_exported_to_onnx(infer, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, nets = infer("binary")
    export = {"config_file": configs_of("inference"), "meta_file": "configs/metadata.json", "net_id": "network_def"}
    file = tmp_path / "model.onnx"
    onnx_export(
        filepath=str(file), ckpt_file=str(tmp_path / "m" / "model.pt"), ckpt_dir=str(tmp_path / "m"), use_trace=True,
        input_shape=(1, 5, F), **export,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file)
    (logits,) = session.run(None, {session.get_inputs()[0].name: BAG[None]})
    p = torch.from_numpy(logits).softmax(1)[0].tolist()
    assert p == pytest.approx(average("binary", nets, torch.from_numpy(BAG)), abs=1e-5)
