"""Tests of the files that ScanResultsSaver writes."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_mil_ext.handlers import ScanResultsSaver
from tests.handlers.savers.items import run, scan


def test_scan_results_saver_writes_scores_in_the_voxels_of_the_scan(tmp_path):
    run(ScanResultsSaver(tmp_path), [scan()])
    folder = tmp_path / "c1"
    result = json.loads((folder / "prediction.json").read_text())
    assert result["prediction"] == 1
    assert result["top_slices"] == [2, 1, 0, 3]
    assert result["slices"][2] == {"slice_index": 2, "position_mm": 47.0, "attention": pytest.approx(0.6)}
    written = nib.load(folder / "c1_scores.nii.gz")
    assert (written.affine == scan()["affine"].numpy()).all()
    # the array of the scan runs from head to foot, so its first slice is the highest
    np.testing.assert_allclose(written.get_fdata()[0, 0], [0.1, 0.6, 0.2, 0.1], atol=1e-6)
    assert sorted(p.name for p in folder.iterdir()) == [
        "c1.png",
        "c1_scores.json",
        "c1_scores.nii.gz",
        "prediction.json",
    ]


def test_scan_results_saver_lists_top_slices_by_their_index_in_the_scan(tmp_path):
    ScanResultsSaver(tmp_path, pictures=[]).save(scan(slice_index=torch.tensor([3, 2, 0, 1, 0])))
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["top_slices"] == [0, 2, 3, 1]


def test_scan_results_saver_removes_files_of_an_earlier_run(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["gif", "html"]).save(scan())
    assert {"c1.gif", "c1.html"} < {path.name for path in (tmp_path / "c1").iterdir()}
    ScanResultsSaver(tmp_path, pictures=[]).save(scan())
    assert {path.name for path in (tmp_path / "c1").iterdir()} == {
        "c1_scores.json",
        "c1_scores.nii.gz",
        "prediction.json",
    }


def test_scan_results_saver_rejects_case_id_outside_of_the_folder(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        run(ScanResultsSaver(tmp_path / "out"), [scan(case_id="../c1")])
    assert not (tmp_path / "out").exists()


def test_scan_results_saver_names_model_and_classes_in_all_files(tmp_path):
    from PIL import Image

    model = {"name": "tumor", "version": "2", "sha256": "0123456789abcdef", "trained_on": "model.json"}
    saver = ScanResultsSaver(
        tmp_path, pictures=["png", "html", "gif"], model=model, class_names=["benign", "malignant"]
    )
    saver.save(scan(source_check="agrees with the training"))
    folder = tmp_path / "c1"
    for name in ("prediction.json", "c1_scores.json"):
        written = json.loads((folder / name).read_text())
        assert (written["model"], written["source_check"]) == (model, "agrees with the training")
        assert (written["class_names"], written["predicted_class"]) == (["benign", "malignant"], "malignant")
    note = "tumor 2, weights 0123456789ab; agrees with the training"
    page = (folder / "c1.html").read_text()
    assert f"<td>model</td><td>{note}</td>" in page
    assert "c1: malignant: probability 0.70" in page
    assert Image.open(folder / "c1.gif").info["comment"].decode() == f"research use only; {note}"


def test_scan_results_saver_needs_a_name_for_each_class(tmp_path):
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 2 classes, got \['tumor'\]"):
        ScanResultsSaver(tmp_path, class_names=["tumor"]).save(scan())
    assert list((tmp_path).rglob("*.json")) == []
