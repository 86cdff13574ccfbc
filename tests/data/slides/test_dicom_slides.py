"""Tests of find_dicom_slides: slides, pyramids and other objects in a folder."""

import shutil

import numpy as np
import pydicom
import pytest

from monai_mil_ext.data import SlideFile, SlideFileError, find_dicom_slides
from tests.data.slides.containers import marked
from tests.data.slides.dicom_slide import write_dicom
from tests.make_slide import stained

IMAGE = marked(stained((500, 700), (100, 100, 400, 400)))
OTHER = np.ascontiguousarray(IMAGE[::-1])


def read(path):
    slide = SlideFile(path)
    return slide.read(0, 0, 0, *slide.size)


def write_ct(path):
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "CT"
    data.SeriesInstanceUID, data.ImageType = "1.2.9", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def test_find_dicom_slides_finds_one_for_each_series(tmp_path):
    write_dicom(tmp_path / "a" / "deep", IMAGE)
    write_dicom(tmp_path / "b", OTHER)
    (first, path), (second, other) = find_dicom_slides(tmp_path)
    assert (path, other) == (tmp_path / "a" / "deep" / "3.dcm", tmp_path / "b" / "3.dcm")
    assert first != second
    assert first.startswith("slide_")
    assert np.array_equal(read(path), IMAGE)
    assert np.array_equal(read(other), OTHER)
    with pytest.raises(SlideFileError, match="with one slide in DICOM, got one with 2: give a file or a folder of one"):
        SlideFile(tmp_path)
    assert np.array_equal(read(tmp_path / "a"), IMAGE)


def test_find_dicom_slides_of_two_series_in_one_folder(tmp_path):
    for name, image in (("a", IMAGE), ("b", OTHER)):
        for file in write_dicom(tmp_path / name, image).iterdir():
            shutil.move(file, tmp_path / f"{name}{file.stem}")  # without a suffix
        (tmp_path / name).rmdir()
    slides = find_dicom_slides(tmp_path)
    assert [path.name for _, path in slides] == ["a3", "b3"]
    assert all(np.array_equal(read(path), image) for (_, path), image in zip(slides, (IMAGE, OTHER), strict=True))


def test_find_dicom_slides_of_two_pyramids_in_a_series(tmp_path):
    write_dicom(tmp_path, IMAGE, pyramid="1.2.3.1111")
    write_dicom(tmp_path, OTHER, pyramid="1.2.3.2222", beside=False)
    (first, path), (second, other) = find_dicom_slides(tmp_path)
    assert first != second
    assert np.array_equal(read(path), IMAGE)
    assert np.array_equal(read(other), OTHER)
    slide = SlideFile(other)
    assert len(slide.downsamples) == 3
    folder = slide._slide._path.parent
    slide.close()
    assert not folder.exists()  # of links to the files of one pyramid


@pytest.mark.parametrize("crop", [(400, 700), (250, 300)])
def test_slide_file_refuses_levels_of_two_pyramids_without_uid(tmp_path, crop):
    write_dicom(tmp_path, IMAGE)
    write_dicom(tmp_path / "b", OTHER[: crop[0], : crop[1]], levels=1, beside=False)
    data = pydicom.dcmread(tmp_path / "b" / "1.dcm")
    data.SeriesInstanceUID = pydicom.dcmread(tmp_path / "1.dcm").SeriesInstanceUID
    data.save_as(tmp_path / "7.dcm")
    with pytest.raises(SlideFileError, match="`slide` must have levels of the same image, got sizes"):
        SlideFile(tmp_path / "3.dcm")


def test_find_dicom_slides_leaves_out_what_is_no_slide(tmp_path):
    write_ct(tmp_path / "ct.dcm")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + bytes(7))
    for name in ("8.dcm", "9.dcm"):  # the label and the overview
        shutil.copy(write_dicom(tmp_path.with_name("s"), IMAGE) / name, tmp_path)
    assert find_dicom_slides(tmp_path) == []
    with pytest.raises(SlideFileError, match="a folder with one slide in DICOM, got one without"):
        SlideFile(tmp_path)
    write_dicom(tmp_path / "slide", OTHER)
    assert [path.name for _, path in find_dicom_slides(tmp_path)] == ["3.dcm"]


@pytest.mark.parametrize("name", ["1.dcm", "2.dcm", "3.dcm", "8.dcm", "9.dcm"])
def test_slide_file_of_any_instance_is_the_slide(tmp_path, name):
    assert np.array_equal(read(write_dicom(tmp_path, IMAGE) / name), IMAGE)


def test_slide_file_names_what_a_dicom_file_is(tmp_path):
    with pytest.raises(SlideFileError, match=r"got a DICOM file that is no slide \(modality CT\)"):
        SlideFile(write_ct(tmp_path / "ct.dcm"))
    label = shutil.copy(write_dicom(tmp_path / "s", IMAGE) / "8.dcm", tmp_path / "label.dcm")
    with pytest.raises(SlideFileError, match="got a DICOM slide without its levels, or in a form that OpenSlide"):
        SlideFile(label)
