"""Tests of the sentences about files that are no readable slides."""

import pytest

from monai_mil_ext.data import SlideFile, SlideFileError
from monai_mil_ext.utils import InputError

FILES = {
    "empty.svs": (b"", "an empty file"),
    "text.svs": (b"no slide", r"a \.svs file of an unknown format"),
    "alone.mrxs": (
        b"\xff\xd8\xff" + bytes(99),
        r"a \.mrxs file without the folder of the same name",
    ),
    "alone.vms": (
        b"[Virtual Microscope Specimen]\nNoLayers=1",
        r"a \.vms file of an unknown format or without its p",
    ),
    "damaged.dcm": (bytes(128) + b"DICM" + bytes(9), "a damaged DICOM file"),
    "cut.tif": (b"II*\0\x08\0\0\0", "a TIFF file that is cut off"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_unreadable_file_is_described(tmp_path, name):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideFileError, match=f"`slide` must be a slide that can be read, got {message}") as error:
        SlideFile(tmp_path / name)
    assert isinstance(error.value, InputError)
    assert error.value.__cause__ is None
