"""Tests of the inference task for scans, without MONAI Label."""

import numpy as np
import pytest

from monai_mil_ext.apps.label import ScanInferTask, scan_infer
from monai_mil_ext.data import ScoreBands

from .server_parts import Bundle, without_init

SLICES = [{"slice_index": i, "position_mm": 5.0 * i, "attention": a} for i, a in enumerate((0.1, 0.6, 0.3))]
RECORD = {
    "probability": [0.0, 1.0],
    "slices": SLICES,
    "plane": "axial",
    "top_slices": [1, 2, 0],
    "notes": ["1 scout was left out."],
}
LABELS = {"slices ranked 1 to 1": 1, "slices ranked 2 to 2": 2}


def make_task(folder, **options):
    bundle = Bundle(folder, RECORD, **options)
    return without_init(ScanInferTask, bundle=bundle, bands=ScoreBands(top_k=(1, 2)), labels=LABELS)


@pytest.fixture
def written(monkeypatch):
    """Label maps and options that the task hands to MONAI Label's writer."""
    calls = []

    class Writer:
        def __init__(self, **options):
            assert options == {"label": "pred", "nibabel": True}

        def __call__(self, data):
            calls.append(data)
            return f"labels{data['result_extension']}", {}

    monkeypatch.setattr(scan_infer, "Writer", Writer)
    return calls


def test_scan_infer_task_returns_label_map_and_json(tmp_path, written):
    task = make_task(tmp_path)
    file, params = task({"image": "/data/s.nii", "device": "cpu"})
    assert file == "labels.nii"
    assert np.asarray(written[0]["pred"])[0, 0].tolist() == [0, 1, 2]
    assert written[0]["pred"].affine[2, 2] == 5
    assert [entry["band"] for entry in params["slices"]] == [0, 1, 2]
    assert (params["model"], params["plane"], params["uncertainty"]) == ("bundle", "axial", 0.0)
    assert (params["top_slices"], params["label_names"]) == ([1, 2, 0], LABELS)
    assert params["notes"] == ["1 scout was left out."]
    (item, configs, overrides) = task.bundle.calls[0]
    assert (item, configs) == ({"image": "/data/s.nii", "case_id": "scan"}, ("inference",))
    assert overrides == {"pictures": [], "dicom": [], "viewer": "none", "device": "cpu"}


@pytest.mark.parametrize(
    ("request_options", "expected"),
    [({"result_extension": ".nrrd"}, ".nrrd"), ({"result_extension": [".mha", ".nii"]}, ".mha"), ({}, ".nii.gz")],
)
def test_scan_infer_task_writes_the_requested_format(tmp_path, written, request_options, expected):
    file, _ = make_task(tmp_path)({"image": "/data/folder", **request_options})
    assert file == f"labels{expected}"


def test_scan_infer_task_writes_no_file_on_request(tmp_path, written):
    assert make_task(tmp_path)({"image": "s.nii", "result_write_to_file": False})[0] is None
    assert written == []


def test_scan_infer_task_refuses_other_extensions_and_hides_paths(tmp_path, http_errors):
    with pytest.raises(http_errors, match=r"`result_extension` must be one of .nii.gz, .* got '/../x.nii'") as error:
        make_task(tmp_path)({"image": "s.nii", "result_extension": "/../x.nii"})
    assert error.value.status_code == 400
    broken = make_task(tmp_path, error=ValueError("cannot read /data/Jane/s.nii"))
    with pytest.raises(http_errors, match=r"^ValueError: cannot read \.\.\.$"):
        broken({"image": "/data/Jane/s.nii"})


def test_scan_infer_task_is_valid_with_weights(tmp_path):
    task = make_task(tmp_path)
    assert (task.is_valid(), task.get_path()) == (False, None)
    assert task.get_path(validate=False) == str(task.bundle.weights)
    task.bundle.weights.parent.mkdir()
    task.bundle.weights.touch()
    assert (task.is_valid(), task.get_path()) == (True, str(task.bundle.weights))


@pytest.mark.parametrize("moved", [2.5, 50.0])
def test_scan_infer_task_refuses_scores_whose_rows_are_not_the_slices(tmp_path, written, http_errors, moved):
    slices = [*SLICES[:2], {**SLICES[2], "position_mm": SLICES[2]["position_mm"] + moved}]
    task = make_task(tmp_path)
    task.bundle.record = {**RECORD, "slices": slices}
    with pytest.raises(http_errors, match="must be a regular stack of slices for a label map"):
        task({"image": "/data/s.nii", "device": "cpu"})
    assert not written
