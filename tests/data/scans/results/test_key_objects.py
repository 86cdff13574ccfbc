"""Tests of the validity of all objects of a scan, by the validators of the distribution."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from monai_mil_ext.data import DicomWriter
from tests.dicom_results import result_of

PACKAGES = ("dicom3tools", "dcmtk", "libdcmtk17")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """Return a function that runs a program, of the distribution's archive unless it is installed."""
    environment = dict(os.environ)
    if not (shutil.which("dciodvfy") and shutil.which("dsrdump")):
        folder = tmp_path_factory.mktemp("tools")
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        apt = ["apt-get", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        unpack = ["sh", "-c", "for file in *.deb; do dpkg -x $file . || exit 1; done"]
        for command in ([*apt, "update"], [*apt, "download", *PACKAGES], unpack):
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"validators can't be fetched: {error}")
        (library,) = folder.glob("usr/lib/*/libdcmsr.so.17")
        environment["PATH"] = f"{folder}/usr/bin:{environment['PATH']}"
        environment["LD_LIBRARY_PATH"] = str(library.parent)
        environment["DCMDICTPATH"] = str(folder / "usr/share/libdcmtk17/dicom.dic")

    def run(*command):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
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
