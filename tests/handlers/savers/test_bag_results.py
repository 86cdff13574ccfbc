"""Savers of evaluations and of scans: the files that they write."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.transforms import Compose

from monai_mil_ext.handlers import BagResultsSaver, ScanResultsSaver, SlideResultsSaver
from monai_mil_ext.handlers.savers.bag_results import _text
from monai_mil_ext.transforms import InstanceScoresd, RankInstancesd, SliceScoresToVolumed


def run(handler, items):
    """An engine that has decollated and postprocessed ``items``, as MONAI's do."""

    def step(engine, batch):
        engine.state.batch = [{k: v for k, v in item.items() if k not in ("pred", "attention")} for item in batch]
        return [{k: item[k] for k in ("pred", "attention")} for item in batch]

    engine = Engine(step)
    handler.attach(engine)
    engine.run([items])
    return engine


def bag(case, label, real=4):
    """A bag padded to five instances."""
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
    nothing = [item | {"pred": torch.tensor([0.5, 0.5])} for item in (bag("a1", 0), bag("b1", 1))]
    engine = run(BagResultsSaver(tmp_path, num_samples=5), nothing)
    lines = dict(line.split()[:2] for line in _text(engine.state.bag_report).splitlines()[1:-1])
    assert lines["bag_auroc"] == lines["bag_kappa"] == "-"
    assert (lines["pointing_game"], lines["precision_at_recall_10"]) == ("1.000", "1.000")
    rows = list(csv.DictReader((tmp_path / "bags.csv").open()))
    assert rows[1]["pointing_game"] == "1.0"


def test_bag_results_saver_writes_an_undefined_metric_as_null(tmp_path):
    run(BagResultsSaver(tmp_path, num_samples=5), [bag("a1", 0)])
    assert "NaN" not in (tmp_path / "report.json").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["values"]["bag_auroc"] is None


def scan(**changes):
    """An item after postprocessing, padded to five slices."""
    n, affine = 4, torch.tensor([[-2.0, 0, 0, 5], [0, 2, 0, 7], [0, 0, -3, 50], [0, 0, 0, 1]], dtype=torch.float64)
    item = {
        "case_id": "c1",
        "pred": torch.tensor([0.3, 0.7]),
        "attention": torch.tensor([0.1, 0.2, 0.6, 0.1, 0.0])[:, None],
        "mask": torch.arange(n + 1) < n,
        "position": torch.tensor([41.0, 44, 47, 50, 0]),
        "slice_index": torch.tensor([0, 1, 2, 3, 0]),
        "affine": affine,
        "spatial_shape": torch.tensor([6, 5, n]),
        "slices": torch.rand(n + 1, 1, 5, 6),
    } | changes
    return Compose([InstanceScoresd(), RankInstancesd(), SliceScoresToVolumed("scores", "score_volume")])(item)


def test_scan_results_saver_writes_the_scores_in_the_scans_own_voxels(tmp_path):
    run(ScanResultsSaver(tmp_path), [scan()])
    folder = tmp_path / "c1"
    result = json.loads((folder / "prediction.json").read_text())
    assert result["prediction"] == 1
    assert result["top_slices"] == [2, 1, 0, 3]
    assert result["slices"][2] == {"slice_index": 2, "position_mm": 47.0, "attention": pytest.approx(0.6)}
    written = nib.load(folder / "c1_scores.nii.gz")
    assert (written.affine == scan()["affine"].numpy()).all()
    # the scan's own array runs from head to foot, so its first slice is the highest
    np.testing.assert_allclose(written.get_fdata()[0, 0], [0.1, 0.6, 0.2, 0.1], atol=1e-6)
    assert sorted(p.name for p in folder.iterdir()) == ["c1.png", "c1_scores.nii.gz", "prediction.json"]


def test_scan_results_saver_names_top_slices_by_their_index_in_the_scan(tmp_path):
    ScanResultsSaver(tmp_path, pictures=[]).save(scan(slice_index=torch.tensor([3, 2, 0, 1, 0])))
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["top_slices"] == [0, 2, 3, 1]


def test_scan_results_saver_removes_files_of_an_earlier_run(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["gif", "html"]).save(scan())
    assert {"c1.gif", "c1.html"} < {path.name for path in (tmp_path / "c1").iterdir()}
    ScanResultsSaver(tmp_path, pictures=[]).save(scan())
    assert {path.name for path in (tmp_path / "c1").iterdir()} == {"c1_scores.nii.gz", "prediction.json"}


@pytest.mark.parametrize("saver", [ScanResultsSaver, SlideResultsSaver])
def test_results_savers_name_an_unknown_picture(saver, tmp_path):
    with pytest.raises(ValueError, match="`pictures` must be one of"):
        saver(tmp_path, pictures=["movie"])


def test_scan_results_saver_refuses_a_case_id_that_leaves_the_folder(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        run(ScanResultsSaver(tmp_path / "out"), [scan(case_id="../c1")])
    assert not (tmp_path / "out").exists()
