"""Tests of ReadTilesd: the pixels of the tiles that a result shows."""

import pytest
import torch

from monai_mil_ext.data import SlideCache, SlideFileError
from monai_mil_ext.transforms import ReadTilesd
from tests.make_slide import damage_tile, stained, write_slide

IMAGE = stained((256, 320), (64, 64, 256, 192))


@pytest.fixture
def item(tmp_path):
    """Three tiles and a padded one; the slide's own pixels are shown."""
    path = write_slide(tmp_path / "s.tif", IMAGE, mpp=0.5, tile=64)
    coords = torch.tensor([[0, 0], [0, 0], [64, 64], [128, 96]])
    mask = torch.tensor([False, True, True, True])
    ranks = {"top": torch.tensor([2, 1]), "bottom": torch.tensor([0])}
    return {"source": str(path), "coords": coords, "tile_size": 64.0, "mask": mask, **ranks}


def test_read_tilesd_reads_the_pixels_of_tiles_without_padding(item):
    out = ReadTilesd(size=64)(item)
    for name, corners in (("top_tiles", [(128, 96), (64, 64)]), ("bottom_tiles", [(0, 0)])):
        expected = [torch.as_tensor(IMAGE[y : y + 64, x : x + 64]) for x, y in corners]
        assert torch.equal(out[name], torch.stack(expected))


def test_read_tilesd_reads_an_open_slide_and_closes_it(item):
    slides = SlideCache()
    slide = slides.open(item["source"], mpp=0.25)
    out, expected = ReadTilesd(slides=slides)(item), ReadTilesd()(item)
    assert slide.closed
    assert torch.equal(out["top_tiles"], expected["top_tiles"])


def test_read_tilesd_skips_an_item_without_slide(item):
    features = {key: value for key, value in item.items() if key != "source"}
    assert ReadTilesd()(features) == features
    with pytest.raises(ValueError, match="`size` must be a positive integer, got 0"):
        ReadTilesd(size=0)


def test_read_tilesd_names_a_damaged_tile_without_the_name_of_its_slide(item, tmp_path):
    damage_tile(tmp_path / "s.tif", 6)
    with pytest.raises(SlideFileError, match="must be readable at level 0"):
        ReadTilesd(size=64)(item)
    out = ReadTilesd(size=64, skip_unreadable=True)(item)
    assert "top_tiles" not in out
    assert out["pictures_missing"].startswith("a tile of the slide can't be read: `slide` must be readable at level 0")
    assert "s.tif" not in out["pictures_missing"]


def test_read_tilesd_rounds_corners_that_come_from_micrometers(item):
    exact = {**item, "coords": item["coords"].double() - 0.4}
    assert torch.equal(ReadTilesd(size=64)(exact)["top_tiles"], ReadTilesd(size=64)(item)["top_tiles"])
