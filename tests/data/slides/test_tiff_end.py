"""Tests of ends_early: a TIFF file that was cut off is never read in part."""

import pytest

from monai_mil_ext.data import SlideFile, SlideFileError
from monai_mil_ext.data.slides.tiff_end import ends_early, is_tiff
from tests.data.slides.containers import CONTAINERS, marked
from tests.make_slide import stained

IMAGE = marked(stained((500, 700), (100, 100, 400, 400)))
FILES = sorted(name for name, (file, _) in CONTAINERS.items() if "." in file)


@pytest.mark.parametrize("name", FILES)
def test_ends_early_of_every_fraction(tmp_path, name):
    file, write = CONTAINERS[name]
    path = write(tmp_path / file, IMAGE, 0.5)
    content = path.read_bytes()
    assert is_tiff(path)
    assert not ends_early(path)
    for length in (9, 100, len(content) // 3, len(content) - 4_000, len(content) - 40):
        path.write_bytes(content[:length])
        assert ends_early(path)
    with pytest.raises(SlideFileError, match="must be a slide that can be read, got a TIFF file that is cut off"):
        SlideFile(path, "tifffile")


def test_ends_early_of_a_circle_of_directories(tmp_path):
    path = tmp_path / "s.tif"
    path.write_bytes(b"II*\0" + (8).to_bytes(4, "little") + (0).to_bytes(2, "little") + (8).to_bytes(4, "little"))
    assert not ends_early(path)
