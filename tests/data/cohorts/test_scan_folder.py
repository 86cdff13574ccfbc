"""Tests of the list of the scans in a folder."""

import pytest

from monai_mil_ext.data.cohorts.scan_folder import scans_of_folder
from tests.scans import write_series


def cases(folder):
    return {item["case_id"]: (item["image"], item.get("series")) for item in scans_of_folder(folder)}


def test_a_folder_of_volumes_and_series_gives_an_item_each(tmp_path):
    for name in ("a.nii.gz", "b.NRRD", "c.mhd", "c.raw", "notes.txt", ".hidden.nii", "results.csv", "e.zip"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "d").mkdir()
    assert cases(tmp_path) == {
        name: (str(tmp_path / file), None)
        for name, file in (("a", "a.nii.gz"), ("b", "b.NRRD"), ("c", "c.mhd"), ("d", "d"), ("e", "e.zip"))
    }


def test_dicom_files_of_one_series_in_the_folder_are_one_item(tmp_path):
    write_series(tmp_path / "x", count=3)
    uid = None
    for i, path in enumerate(sorted((tmp_path / "x").iterdir())):
        path.rename(tmp_path / f"slice{i}.dcm")
    (tmp_path / "x").rmdir()
    ((case, (image, uid)),) = cases(tmp_path).items()
    assert (case, image) == ("slice0", str(tmp_path))
    assert uid.count(".") > 3


def test_a_single_or_damaged_dicom_file_is_an_item_of_its_own(tmp_path):
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08")
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert cases(tmp_path) == {name: (str(tmp_path / f"{name}.dcm"), None) for name in ("cut", "empty")}


def test_a_name_that_can_be_no_case_id_is_hashed(tmp_path):
    (tmp_path / "Müller, Jörg.nii").write_bytes(b"x")
    (case,) = cases(tmp_path)
    assert case.startswith("scan_")
    assert len(case) == 15


def test_two_scans_of_one_name_keep_their_suffix(tmp_path):
    for name in ("a.nii", "a.nrrd", "b.nii"):
        (tmp_path / name).write_bytes(b"x")
    assert list(cases(tmp_path)) == ["a.nii", "a.nrrd", "b"]


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="must be a folder with scans, got one without"):
        scans_of_folder(tmp_path)
