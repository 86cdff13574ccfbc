"""Tests of the key irregular of scan_mil: training, a scan, and a cohort with series that are no regular stack."""

import json

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.conftest import BUNDLE
from tests.scans import write_series
from tests.workflows import configs_of, open_workflow

from .ct_series import OPTIONS, SHAPE, SIDE, train

GAP = np.array([0, 2.5, 5, 10, 12.5, 15])
FRAME = "1.2.826.0.1.77"


@pytest.fixture(scope="module")
def irregular_scans(tmp_path_factory):
    """Four series: regular, with a gap, tilted, with varying steps."""
    folder = tmp_path_factory.mktemp("irregular")
    regular = np.arange(6) * 2.5
    series = {"a": (regular, 0.0), "b": (GAP, 0.0), "c": (regular, 0.6), "d": (regular**1.3, 0.0)}
    for case, (heights, shift) in series.items():
        options = {"spacing": (1.0, 1.0, 2.5), "FrameOfReferenceUID": FRAME}
        write_series(folder / case, SHAPE, heights=heights, shift=shift, **options)
    return folder


@pytest.fixture(scope="module")
def allowed(irregular_scans, tmp_path_factory):
    """Folder of a model that was trained on these series as they are."""
    return train(irregular_scans, tmp_path_factory.mktemp("model"), irregular="allow")


def test_training_names_the_option_for_all_irregular_series_at_once(irregular_scans, tmp_path):
    with pytest.raises(RuntimeError, match="cohort") as error:
        train(irregular_scans, tmp_path)
    cause = root_cause(error.value)
    for case in "bcd":
        assert f"case '{case}'" in str(cause)
    assert "case 'a'" not in str(cause)
    assert str(cause).count("`irregular` can be allow or resample") == 3


def test_training_passes_positions_in_mm_to_normal_guidance(irregular_scans, allowed, tmp_path, monkeypatch):
    item = {"case_id": "b", "patient": "b", "image": str(irregular_scans / "b"), "label": 1}
    other = {**item, "case_id": "a", "patient": "a", "image": str(irregular_scans / "a"), "label": 0}
    paths = {"dataset_dir": str(allowed), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    options = {"scans": [item, other], "in_features": 16, "spatial_size": SIDE, **OPTIONS}
    monkeypatch.chdir(BUNDLE)
    workflow = open_workflow(*configs_of("train", "scan_labels"), kind=None, **paths, **options, irregular="allow")
    batch = next(iter(workflow.parser.get_parsed_content("train#dataloader")))
    rows = sorted(batch["position"].tolist())
    np.testing.assert_allclose(rows, [30 + np.arange(6) * 2.5, 30 + GAP], atol=1e-4)
    assert workflow.parser.get_parsed_content("train#named_handlers#guidance").positions_key == "position"


@pytest.mark.slow(buys="all results of an irregular series have its true positions")
@pytest.mark.parametrize("case", "bcd")
def test_inference_reads_an_irregular_series_as_it_is(start, irregular_scans, allowed, tmp_path, case):
    paths = {"ckpt_dir": str(allowed), "output_dir": str(tmp_path / "out"), "input": str(irregular_scans / case)}
    pictures = ["png", "html", "gif"] if case == "b" else []
    options = {**OPTIONS, "pictures": pictures, "dicom": ["seg", "sr"], "case_id": "c"}
    start("inference", **paths, **options, irregular="allow").run()
    folder = tmp_path / "out" / "c"
    written = json.loads((folder / "prediction.json").read_text())
    assert "dicom" not in written
    assert written["source_check"] == "agrees with the training"
    headers = sorted((dcmread(path) for path in (irregular_scans / case).iterdir()), key=_height)
    positions = [entry["position_mm"] for entry in written["slices"]]
    np.testing.assert_allclose(positions, [_height(ds) for ds in headers], atol=1e-3)
    read = nib.load(folder / "c_scores.nii.gz")
    for ds, entry in zip(headers, written["slices"], strict=True):
        x, y, z = ds.ImagePositionPatient
        voxel = np.rint(np.linalg.inv(read.affine) @ [-x - 3, -y - 3, z, 1])[:3].astype(int)
        assert read.get_fdata()[tuple(voxel)] == pytest.approx(entry["attention"], abs=1e-6)
    assert np.isnan(read.get_fdata()).any()
    places = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in headers}
    for frame in dcmread(folder / "c_seg.dcm").PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == places[source]
    assert (folder / "viewer" / "index.html").is_file() is bool(pictures)
    files = {file.suffix for file in folder.iterdir() if file.is_file()}
    assert files == {".dcm", ".gz", ".json", *(f".{kind}" for kind in pictures)}


@pytest.mark.slow(buys="a model of slices as they are refuses resampled ones")
def test_resampling_belongs_to_the_preprocessing_of_a_model(start, irregular_scans, allowed, tmp_path):
    paths = {"ckpt_dir": str(allowed), "output_dir": str(tmp_path), "input": str(irregular_scans / "b")}
    options = {**OPTIONS, "pictures": [], "case_id": "c", "irregular": "resample"}
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start("inference", **paths, **options).run()
    assert "preprocessing" in str(root_cause(error.value))
    start("inference", **paths, **options, allow_mismatch=True).run()
    written = json.loads((tmp_path / "c" / "prediction.json").read_text())
    np.testing.assert_allclose([entry["position_mm"] for entry in written["slices"]], 30 + np.arange(7) * 2.5)
    assert nib.load(tmp_path / "c" / "c_scores.nii.gz").shape == (SIDE, SIDE, 7)


def test_inference_resamples_as_the_training(start, irregular_scans, tmp_path):
    model = train(irregular_scans, tmp_path / "model", irregular="resample")
    paths = {"ckpt_dir": str(model), "output_dir": str(tmp_path / "out")}
    for case, count in (("a", 6), ("b", 7)):
        start("inference", **paths, **OPTIONS, pictures=[], input=str(irregular_scans / case), case_id=case).run()
        written = json.loads((tmp_path / "out" / case / "prediction.json").read_text())
        assert written["source_check"] == "agrees with the training"
        positions = [entry["position_mm"] for entry in written["slices"]]
        np.testing.assert_allclose(positions, 30 + np.arange(count) * 2.5, atol=1e-3)


def test_cohort_inference_gives_irregular_series_a_row_or_a_prediction(start, irregular_scans, allowed, tmp_path):
    table = irregular_scans / "scans.csv"
    table.write_text("case_id,image\na,a\nb,b\nc,c\n")
    paths = {"ckpt_dir": str(allowed), "output_dir": str(tmp_path), "cohort": str(table)}
    configs = ("inference", "cohort_inference")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start(*configs, **paths, **OPTIONS, pictures=[]).run()
    assert "got none for 2 of 3" in str(root_cause(error.value))
    start(*configs, **paths, **OPTIONS, pictures=[], irregular="allow").run()
    assert {path.parent.name for path in tmp_path.glob("*/prediction.json")} == set("abc")


def _height(ds):
    return float(ds.ImagePositionPatient[2])
