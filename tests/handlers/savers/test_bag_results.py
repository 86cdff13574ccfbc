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
    assert [float(row["attention"]) for row in instances[:4]] == pytest.approx([0.1, 0.6, 0.2, 0.1])
    assert {row["use"] for row in rows + instances} == {"research use only"}


def rows_of(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        ([1.8387], r"`pred` must be probabilities in \[0, 1\], got 1.839; BagProbabilitiesd makes them from logits"),
        ([-2.0, 1.5], r"`pred` must be probabilities in \[0, 1\], got -2"),
        ([0.5, float("nan")], r"`pred` must be probabilities in \[0, 1\], got nan"),
        ([0.9, 0.8], "`pred` must be probabilities that sum to 1 over the classes, got a sum of 1.7"),
    ],
)
def test_bag_results_saver_refuses_what_is_no_probability_and_writes_nothing(tmp_path, pred, message):
    item = bag("a1", 0) | {"pred": torch.tensor(pred)}
    with pytest.raises(ValueError, match=message):
        run(BagResultsSaver(tmp_path, num_samples=5), [item])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [torch.tensor(2), torch.tensor(0.5), torch.tensor([0, 1]), float("nan"), -1])
def test_bag_results_saver_refuses_a_label_that_is_no_class(tmp_path, label):
    with pytest.raises(ValueError, match=r"`label` must be 1 classes in \[0, 2\), got"):
        run(BagResultsSaver(tmp_path, num_samples=5), [bag("a1", 0) | {"label": label}])


def test_bag_results_saver_gives_one_probability_two_columns(tmp_path):
    p = [0.12, 0.38, 0.55, 0.6]
    items = [bag(f"{k}1", k // 2) | {"pred": torch.tensor([p[k]])} for k in range(4)]
    run(BagResultsSaver(tmp_path, num_samples=5), items)
    bags = rows_of(tmp_path / "bags.csv")
    assert [float(row["probability_1"]) for row in bags] == pytest.approx(p)
    assert [float(row["probability_0"]) for row in bags] == pytest.approx([1 - q for q in p])
    assert [row["prediction"] for row in bags] == ["0", "0", "1", "1"]
    assert json.loads((tmp_path / "report.json").read_text())["values"]["bag_accuracy"] == 1.0


def test_bag_results_saver_names_the_model_in_every_row(tmp_path):
    model = {"name": "tumor", "version": "2", "sha256": "ab" * 32, "trained_on": "model.json", "source_check": "agrees"}
    run(BagResultsSaver(tmp_path, num_samples=5, model=model), [bag("a1", 0), bag("b1", 1)])
    named = {"model": "tumor", "model_version": "2", "model_sha256": "ab" * 6, "trained_on": "model.json"}
    for row in rows_of(tmp_path / "bags.csv"):
        assert {key: row[key] for key in (*named, "source_check")} == {**named, "source_check": "agrees"}


def test_bag_results_saver_names_the_classes(tmp_path):
    names, rng = ["LUAD", "LUSC", "normal"], torch.Generator().manual_seed(0)
    items = [bag(f"{k}1", 0) | {"label": k % 3, "pred": torch.rand(3, generator=rng).softmax(0)} for k in range(6)]
    engine = run(BagResultsSaver(tmp_path, num_samples=5, class_names=names), items)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["class_names"] == [row["name"] for row in report["classes"]] == names
    assert (
        [row["num_bags"] for row in report["classes"]] == [sum(line) for line in report["confusion_matrix"]] == [2] * 3
    )
    for row in rows_of(tmp_path / "bags.csv"):
        p = [float(row[f"probability_{c}"]) for c in range(3)]
        assert row["predicted_class"] == names[int(row["prediction"])] == names[p.index(max(p))]
        assert row["label_class"] == names[int(row["label"])]
    assert "  1 LUSC " in _text(engine.state.bag_report)
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 3 classes, got \['LUAD'\]"):
        run(BagResultsSaver(tmp_path, class_names=["LUAD"]), items)


def without(item, *keys):
    return {key: value for key, value in item.items() if key not in keys}


def test_bag_results_saver_without_instance_labels_writes_nothing_about_instances(tmp_path):
    items = [without(bag(f"{c}1", c == "b"), "instance_label") for c in "ab"]
    engine = run(BagResultsSaver(tmp_path, num_samples=5), items)
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["values"]) == set(report["interval_95"]) == {
        "bag_auroc", "bag_auprc", "bag_accuracy", "bag_balanced_accuracy", "bag_macro_f1", "bag_kappa",
    }  # fmt: skip
    assert report["notes"] == ["no metrics of instances: no bag has instance labels"]
    assert not {"instance_auroc", "positive_mass"} & set(rows_of(tmp_path / "bags.csv")[0])
    assert "instance_label" not in rows_of(tmp_path / "instances.csv")[0]
    assert " -" not in _text(engine.state.bag_report)


@pytest.mark.parametrize("order", [1, -1])
def test_bag_results_saver_takes_labels_of_some_instances(tmp_path, order):
    items = [without(bag("a1", 0), "instance_label"), bag("b1", 1)][::order]
    run(BagResultsSaver(tmp_path, num_samples=20), items)
    bags = {row["case_id"]: row for row in rows_of(tmp_path / "bags.csv")}
    assert (bags["a1"]["instance_auroc"], bags["b1"]["instance_auroc"]) == ("", "1.0")
    labels = {row["case_id"]: row["instance_label"] for row in rows_of(tmp_path / "instances.csv")}
    assert labels == {"a1": "", "b1": "0"}
    assert json.loads((tmp_path / "report.json").read_text())["values"]["instance_auroc"] == 1.0


def test_bag_results_saver_takes_bags_without_instances_or_attention(tmp_path):
    empty = {"attention": torch.zeros(0), "mask": torch.zeros(0, dtype=torch.bool)}
    keys = ("instance_label", "position", "slice_index")
    items = [without(bag("a1", 0), *keys) | empty, without(bag("b1", 1), *keys) | empty]
    run(BagResultsSaver(tmp_path, num_samples=5), items)
    assert [row["num_instances"] for row in rows_of(tmp_path / "bags.csv")] == ["0", "0"]
    assert (tmp_path / "instances.csv").read_text().split() == ["case_id,attention,use"]
    from monai_mil_ext.handlers.savers.bag_results import _row

    assert _row(without(bag("a1", 0), *keys, "attention"))["num_instances"] == 4


def test_bag_results_saver_says_that_all_bags_are_of_one_class(tmp_path):
    engine = run(
        BagResultsSaver(tmp_path, num_samples=5), [bag("a1", 1), bag("b1", 1) | {"pred": torch.tensor([0.4, 0.6])}]
    )
    note = "bag_auroc and bag_auprc are undefined: all 2 bags are of class 1"
    assert f"  note: {note}\n" in _text(engine.state.bag_report)
    assert json.loads((tmp_path / "report.json").read_text())["notes"] == [note]


def test_bag_results_saver_writes_no_formula(tmp_path):
    run(BagResultsSaver(tmp_path, num_samples=5), [bag("a1", 1) | {"patient": "=cmd|'/C calc'!A0"}])
    assert rows_of(tmp_path / "bags.csv")[0]["patient"] == "'=cmd|'/C calc'!A0"


def test_bag_results_saver_replaces_nothing_when_a_table_fails(tmp_path, monkeypatch):
    saver = BagResultsSaver(tmp_path, num_samples=5)
    monkeypatch.setattr("monai_mil_ext.handlers.savers.bag_results._bag_line", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division"):
        run(saver, [bag("a1", 1)])
    assert list(tmp_path.iterdir()) == []


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


def test_bag_results_saver_states_model_and_check_in_every_row(tmp_path):
    model = {
        "name": "m",
        "version": "2",
        "sha256": "ab" * 32,
        "trained_on": "model.json",
        "source_check": "mismatch: x",
    }
    run(BagResultsSaver(tmp_path, num_samples=5, model=model), [bag("a1", 0), bag("b1", 1)])
    for row in rows_of(tmp_path / "bags.csv") + rows_of(tmp_path / "instances.csv"):
        assert (row["model"], row["model_version"], row["model_sha256"]) == ("m", "2", "ab" * 6)
        assert (row["source_check"], row["trained_on"]) == ("mismatch: x", "model.json")
    assert json.loads((tmp_path / "report.json").read_text())["model"] == model
