"""Tests of the checks of scans before they are encoded."""

import os

import nibabel as nib
import numpy as np
import pytest

from monai_mil_ext.data import CohortReport, ScanChecks, check_cohort
from monai_mil_ext.data.cohorts import scan_checks
from monai_mil_ext.data.scans import annotations, dicom_files
from monai_mil_ext.utils import optional_dependency
from tests.data.cohort_files import texts, write_scans
from tests.scans import write_enhanced, write_mha, write_nifti, write_series, write_structure_set


def checked(items, checks, encoded=()):
    """Return the report on items that need only a ``case_id`` and a path."""
    report = CohortReport("cohort.json", len(items), [{"patient": "p", **item} for item in items])
    checks.check(report, encoded)
    return report


def test_scan_checks_list_every_unreadable_scan_without_its_name(tmp_path):
    folder = tmp_path / "DOE_JOHN"
    write_series(folder / "good")
    write_series(folder / "gap", heights=np.array([0.0, 2.5, 7.5, 10.0]))
    (folder / "none").mkdir()
    write_nifti(folder / "good.nii.gz", np.zeros((4, 4, 4), np.float32), np.eye(4))
    write_mha(folder / "good.mha", np.zeros((4, 4, 4), np.float32), np.eye(4))
    write_nifti(folder / "time.nii", np.zeros((4, 4, 4, 3), np.float32), np.eye(4))
    rgb = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), folder / "color.nii")
    (folder / "empty.nrrd").touch()
    (folder / "text.nii").write_text("no header")
    names = [
        "good",
        "gap",
        "none",
        "good.nii.gz",
        "good.mha",
        "time.nii",
        "color.nii",
        "empty.nrrd",
        "text.nii",
        "lost.nii",
    ]
    report = checked([{"case_id": f"c{i}", "image": str(folder / name)} for i, name in enumerate(names)], ScanChecks())
    assert [item["case_id"] for item in report.items] == ["c0", "c3", "c4"]
    expected = {
        "c1": "must have evenly spaced slices, got a step of 5 mm",
        "c2": "must be a folder with one series of DICOM image slices, got no DICOM object",
        "c5": "must be one 3D scalar volume, got 4 x 4 x 4 x 3 voxels",
        "c6": "must be one 3D scalar volume, got 4 x 4 x 4 voxels of",
        "c7": "must be a readable, undamaged scan, got an empty file",
        "c8": "",
        "c9": "must exist, got a path without a file",
    }
    assert {issue.case: issue.location for issue in report.errors} == {case: f"case {case!r}" for case in expected}
    for issue in report.errors:
        assert expected[issue.case] in issue.message
    assert "JOHN" not in str(report)
    assert "time.nii" not in str(report)


def test_scan_checks_damaged_headers_are_errors_of_their_case(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AttributeError("no tag")

    monkeypatch.setattr(scan_checks, "find_series", fail)
    report = checked([{"case_id": "a", "image": str(tmp_path)}], ScanChecks())
    assert texts(report.errors) == ["case 'a': AttributeError: no tag"]


def test_scan_checks_required_keys(tmp_path):
    (tmp_path / "a.mha").write_text("voxels")
    scans = [{"case_id": case, "image": str(tmp_path / "a.mha"), "label": 1} for case in "ab"]
    checks = ScanChecks({"reference": "add protocol.yaml"})
    assert texts(checked(scans, checks).errors) == [
        "`reference` must be given for scans, got none in all 2: add protocol.yaml"
    ]
    scans[0]["reference"] = "m.nii"
    report = checked(scans, checks)
    assert report.errors == [("case 'b'", "`reference` must be given, got none: add protocol.yaml", "b")]
    assert [item["case_id"] for item in report.items] == ["a"]


@pytest.mark.parametrize("label", [None, 2, -1, "2", "tumor", 0.5, True, float("nan"), [1]])
def test_scan_checks_labels(tmp_path, label):
    (tmp_path / "a.mha").write_text("voxels")
    scans = [{"case_id": str(i), "image": str(tmp_path / "a.mha"), "label": i} for i in range(2)]
    scans.append({**scans[0], "case_id": "bad", "label": label})
    report = checked(scans, ScanChecks(num_classes=2))
    assert texts(report.errors) == [f"case 'bad': `label` must be a class from 0 to 1, got {label!r}"]
    assert len(checked(scans, ScanChecks()).items) == 3


@pytest.mark.parametrize("label", [1, 1.0, "1", "1.0", " 1 ", "tumor"])
def test_scan_checks_read_labels_as_tables_do(tmp_path, label):
    (tmp_path / "a.mha").write_text("voxels")
    scan = {"case_id": "a", "image": str(tmp_path / "a.mha"), "label": label}
    (item,) = checked([scan], ScanChecks(num_classes=2, classes=["no tumor", "tumor"])).items
    assert (item["label"], type(item["label"])) == (1, int)


def test_scan_checks_modalities_are_mixed_or_confounded(tmp_path):
    scans = []
    for i, modality in enumerate(["CT", "CT", "MR", "MR"]):
        write_series(tmp_path / str(i), Modality=modality)
        scans.append({"case_id": str(i), "patient": str(i), "image": str(i), "label": i // 2})
    expected = [
        "modality: modality must be the same in all files, got 'CT' in 2, 'MR' in 2",
        "modality: modality and label are confounded: class 0 is all CT, class 1 all MR; "
        "a network can separate modalities instead of disease",
    ]
    table = write_scans(tmp_path, scans)
    assert texts(check_cohort(table).errors) == expected
    assert texts(check_cohort(table, checks=ScanChecks()).errors) == expected
    allowed = check_cohort(table, checks=ScanChecks(allow_mismatch=True))
    assert (allowed.errors, len(allowed.notes), len(allowed.items)) == ([], 2, 4)


def test_scan_checks_modality_is_that_of_the_image_slices(tmp_path):
    """Neither a structure set, a dose or a secondary capture beside them, nor a series that is not chosen."""
    write_series(tmp_path / "a")
    write_structure_set(tmp_path / "a")
    write_series(tmp_path / "a", series=0, Modality="RTDOSE")
    write_series(tmp_path / "a", series=-1, Modality="OT", ImagePositionPatient=None)
    write_series(tmp_path / "b", series=2)
    write_series(tmp_path / "b", series=1, Modality="PT")
    write_nifti(tmp_path / "c.nii", np.zeros((4, 4, 4), np.float32), np.eye(4))
    scans = [{"case_id": name, "image": str(tmp_path / name)} for name in ("a", "b", "c.nii")]
    scans[1]["series"] = "2"
    for encoded in ((), ("a", "b", "c.nii")):
        report = checked(scans, ScanChecks(), encoded)
        assert report.errors == []
        assert texts(report.notes) == ["modality: 1 of 3 files does not state the modality: not checked"]


def test_scan_checks_of_enhanced_objects_and_sub_folders(tmp_path):
    write_enhanced(tmp_path / "enhanced.dcm", [0, 5, 10], Modality="MR")
    write_enhanced(tmp_path / "gap.dcm", [0, 5, 15])
    write_series(tmp_path / "series" / "sub" / "folder")
    write_series(tmp_path / "echoes" / "a", EchoNumbers=1)
    write_series(tmp_path / "echoes" / "b", EchoNumbers=2)
    names = ("enhanced.dcm", "gap.dcm", "series", "echoes")
    scans = [{"case_id": name, "image": str(tmp_path / name)} for name in names]
    errors = checked(scans, ScanChecks()).errors
    assert [error.case for error in errors] == ["gap.dcm", "echoes", ""]
    assert "got a step of 10 mm between the slices at 5 and 15 mm" in errors[0].message
    assert "1: 4 slices (echo 1); 2: 4 slices (echo 2). Choose one by `stack`." in errors[1].message
    assert errors[2].message == "modality must be the same in all files, got 'MR' in 1, 'CT' in 1"
    scans[3]["stack"] = "2"
    assert [error.case for error in checked(scans[2:], ScanChecks()).errors] == []


def test_scan_checks_read_one_header_of_encoded_scans(tmp_path):
    write_series(tmp_path / "gap", heights=np.array([0.0, 2.5, 7.5, 10.0]))
    scans = [{"case_id": "gap", "image": str(tmp_path / "gap")}]
    assert len(checked(scans, ScanChecks()).errors) == 1
    assert checked(scans, ScanChecks(), {"gap"}).errors == []
    assert checked(scans, ScanChecks(headers=False)).errors == []


@pytest.fixture
def without_pydicom(monkeypatch):
    """An environment without the packages of DICOM."""
    missing = optional_dependency("dicom", "no_pydicom")
    for module in (scan_checks, dicom_files, annotations):
        monkeypatch.setattr(module, "pydicom", missing)


@pytest.mark.usefixtures("without_pydicom")
def test_only_dicom_needs_pydicom(tmp_path):
    volume = np.zeros((4, 4, 4), np.float32)
    paths = [write_nifti(tmp_path / "a.nii.gz", volume, np.eye(4)), write_mha(tmp_path / "b.mha", volume, np.eye(4))]
    report = checked([{"case_id": path.stem[0], "image": str(path)} for path in paths], ScanChecks())
    assert (len(report.items), report.errors) == (2, [])
    assert [annotations.find_annotation(path) for path in paths] == [None, None]
    write_series(tmp_path / "series")
    with pytest.raises(ImportError, match=r"pip install monai-mil-ext\[dicom\]"):
        checked([{"case_id": "c", "image": str(tmp_path / "series")}], ScanChecks())


def test_scan_checks_do_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "scan.mha")
    item = {"case_id": "a", "image": str(tmp_path / "scan.mha")}
    for headers in (True, False):
        (error,) = checked([item], ScanChecks(headers=headers)).errors
        assert error.message == "`image` must exist, got a path without a file."
