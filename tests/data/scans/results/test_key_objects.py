"""Tests of the validity of all objects of a scan, by the validators of the distribution."""

import subprocess

import numpy as np
import pytest

from monai_mil_ext.data import DicomWriter
from tests.dicom_results import result_of


@pytest.fixture
def tools(programs):
    """Return a function that runs a program of the distribution, and returns what it prints."""

    def run(*command):
        done = subprocess.run(command, env=programs[1], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 127, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.network
@pytest.mark.slow(buys="proof by dciodvfy and dsrdump that archives and viewers get valid objects")
def test_dicom_objects_are_valid_and_named(tools, tmp_path):
    result = result_of(tmp_path / "s", {"SliceThickness": None})
    picture = np.zeros((4, 6, 3), np.uint8)
    files = DicomWriter(tmp_path / "s").write(tmp_path, "c", result, ["seg", "sr", "ko", "sc"], picture)
    assert len(files) == 4
    for file in files:
        printed = tools("dciodvfy", "-new", str(file))
        assert "Error" not in printed, (file.name, printed)
    report = tools("dsrdump", str(files[1]))
    assert '<contains NUM:(,,"Probability of malignant")="0.75"' in report
    assert '<contains SCOORD:(,,"Image Region")=(POLYLINE,0/0,...)>' in report
    assert "<contains IMAGE:" in tools("dsrdump", str(files[2]))
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(files[1].read_bytes().replace(b"SEPARATE", b"SEPERATE"))
    assert "Error" in tools("dciodvfy", "-new", str(broken))  # so that the validator is known to run


def test_key_objects_share_the_study_of_the_slices(tmp_path):
    from pydicom import dcmread

    result = result_of(tmp_path / "s", {"Laterality": "L"})
    writer = DicomWriter(tmp_path / "s")
    files = writer.write(tmp_path, "c", result, ["ko", "sc"], np.zeros((2, 3, 3), np.uint8))
    selection, capture = map(dcmread, files)
    for ds in (selection, capture):
        assert ds.StudyInstanceUID == writer.headers[0].StudyInstanceUID
        assert ds.SeriesInstanceUID != writer.headers[0].SeriesInstanceUID
    assert (capture.Laterality, capture.PatientOrientation) == ("L", "")
    assert (capture.Rows, capture.Columns) == (2, 3)
    assert selection.ContentSequence[-1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
