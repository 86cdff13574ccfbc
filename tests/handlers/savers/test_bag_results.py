"""Tests of the files that BagResultsSaver writes."""

import csv
import json

import pytest
import torch

from monai_mil_ext.handlers import BagResultsSaver
from monai_mil_ext.handlers.savers.bag_results import _text
from tests.handlers.savers.items import run


def bag(case, label, real=4):
    """Return an item of a bag with four instances padded to five."""
    attention = torch.tensor([0.1, 0.6, 0.2, 0.1, 0.0])[:, None]
    return {
        "case_id": case,
        "patient": case[0],
        "label": torch.tensor(label),
        "pred": torch.tensor([0.9, 0.1]) if label == 0 else torch.tensor([0.2, 0.8]),
        "attention": attention,
        "mask": torch.arange(5) < real,
        "instance_label": torch.tensor([0, label, 0, 0, 0]),
        "position": torch.arange(5) * 3.0,
        "slice_index": torch.arange(5),
    }


def test_bag_results_saver_writes_bags_instances_and_report(tmp_path):
    engine = run(BagResultsSaver(tmp_path, num_samples=20), [bag("a1", 0), bag("a2", 1), bag("b1", 0), bag("b2", 1)])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["values"]["bag_auroc"] == report["values"]["instance_auroc"] == 1.0
    assert report["values"]["positive_mass"] == pytest.approx(0.6)
    assert report["values"]["positive_fraction"] == 0.25
    assert report["resampled"] == "patients"
    assert engine.state.bag_report["num_patients"] == 2
    rows = list(csv.DictReader((tmp_path / "bags.csv").open()))
    assert [row["case_id"] for row in rows] == ["a1", "a2", "b1", "b2"]
    assert rows[1]["num_instances"] == "4"
    assert float(rows[1]["probability_1"]) == pytest.approx(0.8)
    instances = list(csv.DictReader((tmp_path / "instances.csv").open()))
    assert len(instances) == 16
    assert [row["position"] for row in instances[:4]] == ["0.0", "3.0", "6.0", "9.0"]
    assert {row["use"] for row in rows + instances} == {"research use only"}


def test_bag_results_saver_logs_an_undefined_metric_as_a_dash(tmp_path):
    items = [item | {"pred": torch.tensor([0.5, 0.5])} for item in (bag("a1", 0), bag("b1", 1))]
    engine = run(BagResultsSaver(tmp_path, num_samples=5), items)
    lines = dict(line.split()[:2] for line in _text(engine.state.bag_report).splitlines()[1:-1])
    assert lines["bag_auroc"] == lines["bag_kappa"] == "-"
    assert (lines["pointing_game"], lines["precision_at_recall_10"]) == ("1.000", "1.000")
    rows = list(csv.DictReader((tmp_path / "bags.csv").open()))
    assert rows[1]["pointing_game"] == "1.0"


def test_bag_results_saver_writes_an_undefined_metric_as_null(tmp_path):
    run(BagResultsSaver(tmp_path, num_samples=5), [bag("a1", 0)])
    assert "NaN" not in (tmp_path / "report.json").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["values"]["bag_auroc"] is None
