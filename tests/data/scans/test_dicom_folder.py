"""Tests of folders as hospitals export them: sub-folders, indexes, other objects, and files without a preamble."""

import os
import shutil

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans import dicom_folder
from monai_mil_ext.data.scans.dicom_folder import read_dicom_folder, scan_files
from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.utils import InputError
from tests.scans import edit_dicom, voxels, write_enhanced, write_series, write_structure_set


def scatter(source, folder):
    """Move the files of a series into sub-folders of different depth."""
    for k, path in enumerate(sorted(source.iterdir())):
        place = folder.joinpath(*(f"level{i}" for i in range(k)))
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place / f"IM{k}")


def test_scan_files_searches_sub_folders(tmp_path):
    expected = write_series(tmp_path / "flat")
    plain = LoadScan()(tmp_path / "flat")
    scatter(tmp_path / "flat", tmp_path / "s")
    image = LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(image.affine, plain.affine)
    assert image.meta["container"] == "DICOM series"


def test_scan_files_finds_two_series_in_sub_folders(tmp_path):
    write_series(tmp_path / "s" / "a", series=1)
    expected = write_series(tmp_path / "s" / "b", (6, 5, 3), series=2)
    with pytest.raises(InputError, match=r"must be a folder with one series, got 2: 3 slices .*; 4 slices ") as error:
        LoadScan()(tmp_path / "s")
    assert error.value.option == "--series NUMBER"
    np.testing.assert_array_equal(LoadScan("2")(tmp_path / "s")[0], expected)


def test_scan_files_leaves_out_hidden_folders_and_links_out_of_the_folder(tmp_path):
    write_series(tmp_path / "s")
    write_series(tmp_path / "s" / ".trash", series=2)
    write_series(tmp_path / "elsewhere", series=3)
    (tmp_path / "s" / "sub").mkdir()
    (tmp_path / "s" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "s" / "sub" / "loop").symlink_to(tmp_path / "s")
    (tmp_path / "s" / "sub" / "file.dcm").symlink_to(next((tmp_path / "elsewhere").iterdir()))
    (tmp_path / "s" / "sub" / "gone.dcm").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "s" / "pipe.dcm")
    assert len(find_series(tmp_path / "s")) == 4


def test_scan_files_follows_links_of_a_farm_of_links(tmp_path):
    """A folder of links to slices elsewhere is a usual way to make a selection; so is a link to a folder."""
    write_series(tmp_path / "archive")
    (tmp_path / "s").mkdir()
    for path in (tmp_path / "archive").iterdir():
        (tmp_path / "s" / path.name).symlink_to(path)
    (tmp_path / "linked").symlink_to(tmp_path / "s")
    assert len(find_series(tmp_path / "s")) == len(find_series(tmp_path / "linked")) == 4


def test_scan_files_has_limits(tmp_path, monkeypatch):
    deep = tmp_path.joinpath("s", *"abcdefgh")
    write_series(deep)
    assert len(find_series(tmp_path / "s")) == 4
    write_series(deep / "i")
    with pytest.raises(InputError, match="a folder with at most 8 levels of sub-folders, got more"):
        find_series(tmp_path / "s")
    monkeypatch.setattr(dicom_folder, "MAX_FILES", 3)
    assert len(list(scan_files(next(deep.glob("*.dcm"))))) == 1
    with pytest.raises(InputError, match="a folder with at most 3 files, got more"):
        find_series(deep / "i")


def test_read_dicom_folder_with_an_index_of_its_files(tmp_path):
    """The index of a CD is no slice; given as a file, it stands for the folder in which it lies."""
    expected = write_series(tmp_path / "s", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], PatientSex="F", StudyID="1")
    files = FileSet()
    for path in sorted((tmp_path / "s").iterdir()):
        ds = dcmread(path)
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20200101", "101010", "1"
        files.add(ds)
    files.write(tmp_path / "cd")
    assert (tmp_path / "cd" / "DICOMDIR").is_file()
    for source in (tmp_path / "cd", tmp_path / "cd" / "DICOMDIR"):
        image = LoadScan()(source)
        np.testing.assert_array_equal(image[0], expected)
        assert image.meta["notes"] == []
    for path in [path for path in (tmp_path / "cd").rglob("*") if path.is_file() and path.name != "DICOMDIR"]:
        path.unlink()
    with pytest.raises(InputError, match="one series of DICOM image slices, got 1 DICOMDIR"):
        LoadScan()(tmp_path / "cd" / "DICOMDIR")


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
@pytest.mark.parametrize("meta", [True, False], ids=["group 2", "group 8"])
@pytest.mark.parametrize("kind", ["series", "enhanced", "file"])
def test_read_dicom_folder_reads_files_without_preamble(tmp_path, implicit, meta, kind):
    if kind == "enhanced":
        expected = write_enhanced(tmp_path / "e", [0, 5, 10])
    else:
        expected = write_series(tmp_path, (6, 5, 1 if kind == "file" else 4))
    for path in list(tmp_path.iterdir()):
        ds = dcmread(path)
        if meta:
            ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
            ds.save_as(path, implicit_vr=implicit, little_endian=True)
            path.write_bytes(path.read_bytes()[132:])
        else:
            del ds.file_meta, ds.preamble
            dcmwrite(path, ds, implicit_vr=implicit, little_endian=True)
    image = LoadScan()(tmp_path if kind != "file" else next(tmp_path.iterdir()))
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_allclose(image.affine[:3, 3], [10, 20, 0 if kind == "enhanced" else 30])


def test_read_dicom_folder_notes_objects_that_are_no_images(tmp_path):
    write_series(tmp_path / "s")
    write_structure_set(tmp_path / "s")
    shutil.copy(tmp_path / "s" / "contours.dcm", tmp_path / "s" / "again.dcm")
    notes = LoadScan()(tmp_path / "s").meta["notes"]
    assert notes == ["2 objects of modality RTSTRUCT were left out."]


def test_read_dicom_folder_says_what_is_there_in_place_of_slices(tmp_path):
    write_structure_set(tmp_path)
    (tmp_path / "report.txt").write_text("text")
    with pytest.raises(InputError, match="one series of DICOM image slices, got 1 of modality RTSTRUCT"):
        LoadScan()(tmp_path)
    with pytest.raises(InputError, match="must be a file with one series of DICOM image slices, got 1 of modality RTS"):
        LoadScan()(tmp_path / "contours.dcm")


@pytest.mark.parametrize("name", ["sub/T1.nii.gz", "scan.NRRD", "export.zip"])
def test_read_dicom_folder_says_that_a_volume_is_given_as_a_file(tmp_path, name):
    (tmp_path / "s" / name).parent.mkdir(parents=True)
    (tmp_path / "s" / name).write_bytes(b"volume")
    with pytest.raises(InputError, match=r"got no DICOM object, but 1 NIfTI, .* zip, each to be given as a file\.$"):
        LoadScan()(tmp_path / "s")


def test_read_dicom_folder_takes_a_file_as_its_only_object(tmp_path):
    write_series(tmp_path / "s")
    path = next((tmp_path / "s").iterdir())
    assert [item.path for item in read_dicom_folder(path).slices] == [path]


def test_read_dicom_folder_tells_a_frame_of_secondary_capture_from_a_slice(tmp_path):
    """A picture of the screen in the series has no position; it is part of no stack."""
    write_series(tmp_path / "s")
    path = find_series(tmp_path / "s")[0].path
    ds = dcmread(path)
    new = Dataset()
    new.update({element.tag: element for element in ds if element.keyword not in ("ImagePositionPatient",)})
    new.file_meta = FileMetaDataset()
    new.file_meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
    new.SOPClassUID, new.SeriesInstanceUID, new.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.9", "1.2.9.1"
    new.save_as(tmp_path / "s" / "screen.dcm", enforce_file_format=True)
    image = LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(image[0], voxels((6, 5, 4)) * 2.0 - 1024)
    assert image.meta["notes"] == ["1 object of modality CT with no ImagePositionPatient was left out."]


@pytest.mark.parametrize(
    "kind", ["SecondaryCaptureImageStorage", "MultiFrameTrueColorSecondaryCaptureImageStorage", "RawDataStorage"]
)
@pytest.mark.parametrize("missing", [["PixelSpacing"], ["ImagePositionPatient", "Rows"]])
def test_read_dicom_folder_leaves_out_what_is_no_slice_of_its_series(tmp_path, kind, missing):
    """A dose report or raw data may have the SeriesInstanceUID of the slices."""
    expected = write_series(tmp_path / "s")
    write_series(tmp_path / "s" / "other", (6, 5, 1), SOPClassUID=getattr(uid, kind))
    (other,) = (tmp_path / "s" / "other").iterdir()
    edit_dicom(other, lambda ds: [delattr(ds, tag) for tag in missing])
    image = LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(image[0], expected)
    assert len(image.meta["notes"]) == 1
    assert image.meta["notes"][0].startswith("1 object of modality CT with no ")
    edit_dicom(other, lambda ds: setattr(ds.file_meta, "MediaStorageSOPClassUID", uid.CTImageStorage))
    with pytest.raises(ValueError, match="undamaged scan, got 1 DICOM file with no "):
        LoadScan()(tmp_path / "s")
