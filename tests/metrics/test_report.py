"""Tests of the report of an evaluation."""

import math

import numpy as np
import pytest
import torch

from monai_mil_ext.metrics import bag_report, bootstrap_interval, instance_values


def rows(patients):
    """Return four bags per patient; all bags of the first are classified correctly, those of the others wrongly."""
    rows = []
    for k, patient in enumerate(patients):
        for label in (0, 1, 0, 1):
            p = 0.9 if (label == 1) == (k == 0) else 0.1
            instances = torch.tensor([0, label, label, 0])
            scores = torch.tensor([0.1, 0.5, 0.3, 0.1])
            rows.append(
                {"patient": patient, "label": label, "probability": [1 - p, p], **instance_values(scores, instances)}
            )
    return rows


def test_instance_values_include_baselines():
    values = instance_values(torch.tensor([0.1, 0.1, 0.2, 0.6]), torch.tensor([0, 0, 0, 1]))
    assert values["instance_auroc"] == 1.0
    assert values["positive_mass"] == pytest.approx(0.6)
    assert values["positive_fraction"] == 0.25
    assert values["pointing_game"] == values["precision_at_recall_10"] == 1.0
    assert values["center_auroc"] == pytest.approx(0.5 / 3)  # last of four: below two, level with the first
    assert instance_values(torch.rand(4), None) == {}


def test_bag_report_has_all_metrics_of_bags_and_instances():
    values = bag_report(rows("ab"), num_samples=5)["values"]
    assert values["bag_balanced_accuracy"] == values["bag_auroc"] == 0.5
    assert values["bag_kappa"] == 0
    assert values["pointing_game"] == 1.0
    assert math.isnan(values["instance_skill"])  # these lesions lie in the center, so the baseline is perfect
    pairs = zip(rows("a"), ((0.7, 0.5), (0.9, 0.6)) * 2, strict=True)
    spread = [row | {"instance_auroc": auroc, "center_auroc": center} for row, (auroc, center) in pairs]
    assert bag_report(spread, num_samples=5)["values"]["instance_skill"] == pytest.approx(0.25 / 0.45)


def bare(row):
    """Return a row of a bag without instance labels."""
    return {key: row[key] for key in ("patient", "label", "probability")} | instance_values(torch.rand(4), None)


def test_bag_report_is_nan_without_predictions():
    blind = [row | {"probability": [0.5, 0.5]} for row in map(bare, rows("ab"))]
    report = bag_report(blind, num_samples=5)
    assert report["notes"][0] == "bag metrics are undefined: all bags have the same probability"
    assert all(math.isnan(value) for value in report["values"].values())
    assert all(math.isnan(bound) for interval in report["interval_95"].values() for bound in interval)
    assert math.isnan(report["patients"]["a"]["bag_macro_f1"])
    assert not {"classes", "confusion_matrix"} & set(report)
    single = bag_report(blind[:1], num_samples=5)  # one bag always has one probability
    assert single["values"]["bag_accuracy"] == 1.0


def test_bag_report_has_no_values_of_instances_without_their_labels():
    report = bag_report(list(map(bare, rows("ab"))), num_samples=5)
    names = {"bag_auroc", "bag_auprc", "bag_accuracy", "bag_balanced_accuracy", "bag_macro_f1", "bag_kappa"}
    assert set(report["values"]) == set(report["interval_95"]) == names
    assert set(report["patients"]["a"]) == names | {"num_bags"}
    assert report["notes"] == ["no metrics of instances: no bag has instance labels"]


def test_bag_report_means_the_values_of_the_bags_with_instance_labels():
    mixed = [bare(row) if row["patient"] == "a" else row for row in rows("ab")]
    report, whole = bag_report(mixed, num_samples=50), bag_report(rows("b"), num_samples=5)
    assert report["values"]["positive_mass"] == pytest.approx(whole["values"]["positive_mass"])
    assert "positive_mass" not in report["patients"]["a"]
    assert report["patients"]["b"]["positive_mass"] == pytest.approx(whole["values"]["positive_mass"])
    assert report["notes"] == []


def test_bag_report_notes_why_values_are_undefined():
    positive = [row for row in rows("ab") if row["label"] == 1]
    note = "bag_auroc and bag_auprc are undefined: all 4 bags are of class 1"
    assert bag_report(positive, num_samples=5)["notes"] == [note]
    negative = [row for row in rows("ab") if row["label"] == 0]
    assert bag_report(negative, num_samples=5)["notes"][1:] == [
        "metrics of instances are undefined: no bag has positive and negative instances"
    ]


def test_bag_report_has_the_values_of_each_class():
    graded = [row | {"probability": p} for row, p in zip(rows("a"), np.eye(3)[[0, 1, 2, 1]].tolist(), strict=True)]
    report = bag_report(graded, 5, class_names=["low", "middle", "high"])
    assert report["class_names"] == [row["name"] for row in report["classes"]] == ["low", "middle", "high"]
    assert report["confusion_matrix"] == [[1, 0, 1], [0, 2, 0], [0, 0, 0]]


def test_bag_report_weights_grades():
    graded = [row | {"probability": p} for row, p in zip(rows("a"), np.eye(3)[[0, 1, 2, 1]].tolist(), strict=True)]
    plain, weighed = (bag_report(graded, 5, w)["values"]["bag_kappa"] for w in (None, "quadratic"))
    assert plain != weighed


def test_bag_report_resamples_patients():
    report = bag_report(rows("ab"), num_samples=200)
    assert report["resampled"] == "patients"
    assert report["patients"]["a"]["bag_auroc"] == 1.0
    assert report["patients"]["b"]["bag_auroc"] == 0.0
    assert report["interval_95"]["bag_accuracy"] == (0.0, 1.0)  # two patients: one may be drawn twice
    assert report["values"]["instance_auroc"] == 1.0


def test_bag_report_resamples_bags_of_a_single_patient():
    report = bag_report(rows("a"), num_samples=50)
    assert report["resampled"] == "bags"
    assert report["interval_95"]["bag_accuracy"] == (1.0, 1.0)


def test_bootstrap_interval_covers_a_known_mean():
    data = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = bootstrap_interval(data, lambda d: {"mean": float(np.mean(d))})["mean"]
    assert low < 3.0 < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.08)


def test_bootstrap_interval_draws_whole_groups():
    seen = []
    bootstrap_interval([1, 2, 3, 4], lambda r: seen.append(sorted(r)) or {"n": len(r)}, groups="aabb", num_samples=20)
    assert {tuple(s) for s in seen} == {(1, 1, 2, 2), (1, 2, 3, 4), (3, 3, 4, 4)}


def test_bag_report_refuses_no_bags():
    with pytest.raises(ValueError, match="`rows` must have at least one bag, got none"):
        bag_report([])
