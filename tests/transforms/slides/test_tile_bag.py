"""Tests of TileBag: from a whole slide to a bag of tiles."""

import re

import numpy as np
import pytest
import torch

from monai_mil_ext.data import FeatureCache, OtsuTissue, SlideFileError, TileGrid, read_bag
from monai_mil_ext.transforms import RandSampleInstancesd, TileBag, TileBagd
from monai_mil_ext.utils import EmptyBagError
from tests.make_slide import stained, write_slide

BOX = (128, 64, 640, 448)  # left, top, right, bottom: 8 x 6 tiles of 64
IMAGE = stained((600, 800), BOX)


@pytest.fixture
def path(tmp_path):
    return write_slide(tmp_path / "slide.tif", IMAGE)


def expected(step=64, size=64):
    left, top, right, bottom = BOX
    return [[x, y] for y in range(top, bottom - size + 1, step) for x in range(left, right - size + 1, step)]


def test_tile_bag_takes_exactly_the_tiles_with_tissue(path):
    tiles = TileBag(TileGrid(64), min_tissue=0.9)(path)
    assert tiles.coords.tolist() == expected()
    assert tiles.coords.dtype == torch.int64
    assert float(tiles.tissue.min()) > 0.97
    assert (tiles.tile_size, tiles.unit, tiles.mpp) == (64.0, "px", 0.5)
    assert tiles.spatial_shape.tolist() == [800, 600]
    x, y = tiles.coords[7].tolist()
    assert np.array_equal((tiles.bag[7] * 255).round().byte().permute(1, 2, 0), IMAGE[y : y + 64, x : x + 64])


def test_tile_bag_min_tissue(path):
    grid = TileGrid(100)
    some, half, any_at_all = (TileBag(grid, min_tissue=share)(path) for share in (0.25, 0.5, 0.0))
    assert len(half.coords) < len(some.coords) < len(any_at_all.coords)
    left, top, right, bottom = BOX
    for (x, y), share in zip(any_at_all.coords.tolist(), any_at_all.tissue.tolist(), strict=True):
        width, height = (max(0, min(b, c + 100) - max(a, c)) for a, b, c in ((left, right, x), (top, bottom, y)))
        assert share == pytest.approx(width * height / 1e4, abs=0.03)


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_tile_bag_at_a_coarser_resolution_takes_larger_tiles(path, reader):
    tiles = TileBag(TileGrid(32, mpp=1.0), min_tissue=0.9, reader=reader)(path)
    assert tiles.coords.tolist() == expected()
    assert (tiles.tile_size, tiles.mpp) == (64.0, 1.0)
    assert tiles.bag[0].shape == (3, 32, 32)


def test_tile_bag_takes_slide_mpp_for_all_slides_or_for_one(tmp_path):
    path = write_slide(tmp_path / "s.tif", IMAGE, mpp=None)
    grid = TileGrid(32, mpp=1.0)
    with pytest.raises(SlideFileError, match="`slide` must state its mpp"):
        TileBag(grid)(path)
    assert TileBag(grid, slide_mpp=0.5)(path).tile_size == 64.0
    assert TileBagd("image", grid, slide_mpp=0.25)({"image": path, "slide_mpp": 0.5})["tile_size"] == 64.0
    assert TileBag(TileGrid(64))(path).mpp is None


def test_tile_bag_takes_the_magnification_of_slides_that_state_no_resolution(tmp_path):
    without = write_slide(tmp_path / "a.tif", IMAGE, mpp=None)
    stated = write_slide(tmp_path / "b.tif", IMAGE, mpp=0.5)
    to_tiles = TileBagd("image", TileGrid(32, mpp=1.0), magnification=40)
    first, second = to_tiles({"image": without, "notes": "a note"}), to_tiles({"image": stated})
    assert (first["tile_size"], second["tile_size"]) == (128.0, 64.0)
    assert first["notes"] == "a note; 0.25 micrometers per pixel follow from the given magnification 40."
    assert "notes" not in second
    assert (first["container"], second["container"]) == ("generic TIFF", "generic TIFF")
    assert to_tiles({"image": without, "magnification": "20"})["tile_size"] == 64.0
    with pytest.raises(ValueError, match="`magnification` must be a number, got 'high'"):
        to_tiles({"image": without, "magnification": "high"})
    assert TileBag(TileGrid(32, magnification=20), magnification=40)(stated).tile_size == 64.0


def test_tile_bag_tissue_is_a_function_or_false(path):
    right = TileBag(TileGrid(100), tissue=lambda picture: np.indices(picture.shape[:2])[1] >= 400)(path)
    assert right.coords[:, 0].unique().tolist() == [400, 500, 600, 700]
    assert len(TileBag(TileGrid(100), tissue=False)(path).coords) == 48
    with pytest.raises(ValueError, match=r"`tissue` must give a mask of shape \(600, 800\), got \(3, 3\)"):
        TileBag(tissue=lambda picture: np.ones((3, 3)))(path)


def inked(path, ink):
    """Write a slide with ``ink`` rows of green ink below 100 rows of tissue."""
    image = stained((400, 400), (50, 40, 350, 140), color=(190, 110, 170))
    image[160 : 160 + ink, 50:350] = 20, 110, 50
    return write_slide(path, image)


def test_tile_bag_says_if_most_of_a_slide_is_taken_for_ink(tmp_path):
    some, most = (TileBag(TileGrid(64))(inked(tmp_path / f"{k}.tif", k)) for k in (40, 200))
    assert some.notes == ""
    assert re.fullmatch(r"6\d% of what is not glass was taken for ink, which --tissue#pens false keeps", most.notes)
    assert len(TileBag(TileGrid(64), OtsuTissue(pens=False))(tmp_path / "200.tif").coords) > len(most.coords)
    item = TileBagd("image", TileGrid(64))({"image": tmp_path / "200.tif"})
    assert item["notes"] == most.notes
    assert "notes" not in TileBagd("image", TileGrid(64))({"image": tmp_path / "40.tif"})
    item = TileBagd("image", TileGrid(64))({"image": tmp_path / "200.tif", "notes": "2 pages were left out"})
    assert item["notes"] == f"2 pages were left out; {most.notes}"


def test_tile_bag_of_ink_alone_names_the_option_that_keeps_it(tmp_path):
    path = write_slide(tmp_path / "ink.tif", stained((400, 400), (50, 40, 350, 340), color=(20, 110, 50)))
    with pytest.raises(EmptyBagError, match="; 100% of what is not glass was taken for ink, which --tissue#p") as error:
        TileBag(TileGrid(64))(path)
    assert error.value.option == "--tissue#pens false"
    assert error.value.facts["notes"].startswith("100% of what is not glass")
    assert error.value.facts["shape"] == (400, 400)
    assert len(TileBag(TileGrid(64), OtsuTissue(pens=False))(path).coords) > 10


def test_tile_bag_identifies_what_selects_tiles():
    kinds = [TileBag(), TileBag(tissue=OtsuTissue(pens=False)), TileBag(tissue=False), TileBag(min_tissue=0.5)]
    assert len({tiles.tissue_id for tiles in kinds}) == 4
    assert TileBag(TileGrid(64), OtsuTissue(pens=True)).tissue_id == TileBag().tissue_id
    assert TileBag(tissue="false").tissue_id == TileBag(tissue=False).tissue_id
    assert re.fullmatch(r"tissue detection [0-9a-f]{12}", TileBag().tissue_id)


def test_tile_bag_takes_words_of_a_command_line(path):
    assert len(TileBag(TileGrid(100), tissue="false")(path).coords) == 48
    with pytest.raises(ValueError, match="`tissue` must be true or false, got 'otsu'"):
        TileBag(tissue="otsu")
    with pytest.raises(ValueError, match="`tissue` must be a function of a thumbnail, None or False, got True"):
        TileBag(tissue="true")


def test_tile_bag_of_a_slide_without_tissue_is_empty(tmp_path):
    path = write_slide(tmp_path / "blank.tif", stained((600, 800)))
    with pytest.raises(EmptyBagError, match=r"tissue fraction of 0.25 or more, got at most 0 among 6 tiles\.$"):
        TileBag()(path)
    with pytest.raises(EmptyBagError, match="of 0 or more, got at most 0 among"):
        TileBag(min_tissue=0.0)(path)


def test_tile_bag_of_a_slide_smaller_than_a_tile(tmp_path):
    path = write_slide(tmp_path / "small.tif", stained((100, 120), (0, 0, 120, 100)), levels=1)
    with pytest.raises(SlideFileError, match="`slide` must be at least as large as a tile, or `edge` 'pad'"):
        TileBag()(path)
    tiles = TileBag(TileGrid(edge="pad"), min_tissue=0.1)(path)
    assert tiles.coords.tolist() == [[0, 0]]
    assert tiles.bag[0].shape == (3, 256, 256)
    assert float(tiles.tissue) == pytest.approx(100 * 120 / 256**2, abs=0.005)


def test_tile_bagd_is_sampled_before_any_pixel_is_read(path):
    cap = RandSampleInstancesd(["image", "coords", "tissue"], num_instances=10)
    item, again = (cap.set_random_state(3)(TileBagd("image", TileGrid(64))({"image": path})) for _ in range(2))
    assert item["coords"].tolist() == item["image"].coords.tolist() == again["coords"].tolist()
    assert len(item["image"]) == len(item["tissue"]) == 10
    assert item["image"]._slide is None


def test_tile_bagd_is_deterministic_and_fills_a_cache(path, tmp_path):
    def mean_color(item):
        tiles = to_tiles(item)
        return {**tiles, "image": tiles["image"][:].mean(dim=(2, 3))}

    to_tiles = TileBagd("image", TileGrid(64), min_tissue=0.9)
    cache = FeatureCache(tmp_path / "features", mean_color, ["image", "coords"], "f" * 64, progress=False)
    (item,) = cache([{"image": str(path), "case_id": "s1"}])
    bag = read_bag(item["image"], ["features", "coords"])
    assert bag["coords"].tolist() == expected()
    assert bag["features"].shape == (48, 3)


def test_tile_bagd_takes_one_slide_per_item(path):
    with pytest.raises(ValueError, match=r"`keys` must name one slide of an item, got \['a', 'b'\]"):
        TileBagd(["a", "b"])({"a": path, "b": path})


def test_tile_bagd_refuses_an_item_without_its_slide_unless_allowed():
    with pytest.raises(KeyError, match="image"):
        TileBagd("image")({"case_id": "s1"})
    assert TileBagd("image", allow_missing_keys=True)({"case_id": "s1"}) == {"case_id": "s1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_tissue": 25}, "`min_tissue` must be from 0 to 1, got 25"),
        ({"tissue": True}, "`tissue` must be a function of a thumbnail, None or False, got True"),
        ({"thumbnail_size": 0}, "`thumbnail_size` must be a positive integer"),
        ({"reader": "pil"}, "`reader` must be one of"),
        ({"dtype": torch.bool}, "`dtype` must be torch.uint8 or a floating type"),
    ],
)
def test_tile_bag_names_invalid_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        TileBag(**options)
