"""Tests of the pyramid of JPEG tiles of a slide."""

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.data import SlideFile
from monai_mil_ext.data.slides.slide_pyramid import write_slide_pyramid
from tests.data.slides.containers import write_scn
from tests.make_slide import stained, write_slide


def level_of(folder, layout, level):
    """Return the pixels of a level, joined from its tiles."""
    rows = []
    while (folder / str(level) / f"0_{len(rows)}.jpg").is_file():
        columns = []
        while (path := folder / str(level) / f"{len(columns)}_{len(rows)}.jpg").is_file():
            columns.append(np.asarray(Image.open(path)))
        rows.append(np.concatenate(columns, axis=1))
    return np.concatenate(rows, axis=0).astype(int)


@pytest.mark.parametrize("size", [(256, 320), (333, 401), (64, 64), (65, 20), (1, 300)])
@pytest.mark.parametrize("levels", [1, 2])
def test_write_slide_pyramid_has_every_pixel_at_each_level(size, levels, tmp_path):
    image = stained(size, (size[1] // 4, size[0] // 4, size[1] // 2 + 1, size[0] // 2 + 1))
    with SlideFile(write_slide(tmp_path / "s.tif", image, tile=64, levels=levels if min(size) > 60 else 1)) as slide:
        layout = write_slide_pyramid(tmp_path / "p", slide, tile_size=64)
    assert (layout.height, layout.width) == size
    assert sorted(int(path.name) for path in (tmp_path / "p").iterdir()) == [
        *range(layout.min_level, layout.max_level + 1)
    ]
    assert len(list((tmp_path / "p" / str(layout.min_level)).iterdir())) == 1
    for level in range(layout.max_level, layout.min_level - 1, -1):
        pixels = level_of(tmp_path / "p", layout, level)
        assert pixels.shape == (
            *(-(-side // 2 ** (layout.max_level - level)) for side in size),
            3,
        )  # as Deep Zoom counts
        assert np.abs(pixels - reduced(image, layout.max_level - level)).mean() < 4


def reduced(image, times):
    picture = Image.fromarray(image)
    for _ in range(times):
        picture = picture.reduce(2)
    return np.asarray(picture).astype(int)


def test_write_slide_pyramid_begins_at_the_bounds(tmp_path):
    with SlideFile(write_scn(tmp_path / "s.scn", stained((256, 320), (32, 32, 224, 160)))) as slide:
        layout = write_slide_pyramid(tmp_path / "p", slide, tile_size=128)
        x, y, width, height = slide.bounds
        expected = slide.read(0, x, y, width, height)
    assert (x, y) != (0, 0)
    assert (layout.width, layout.height) == (width, height)
    assert np.abs(level_of(tmp_path / "p", layout, layout.max_level) - expected).mean() < 4


def test_write_slide_pyramid_names_a_wrong_size(tmp_path):
    with (
        SlideFile(write_slide(tmp_path / "s.tif", stained((64, 64)), levels=1)) as slide,
        pytest.raises(ValueError, match="`tile_size` must be a positive integer"),
    ):
        write_slide_pyramid(tmp_path / "p", slide, tile_size=0)
