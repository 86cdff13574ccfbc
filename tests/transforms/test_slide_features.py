"""SlideFeaturesd: features of slides, made or read, and the positions of their tiles."""

import numpy as np
import pytest
import torch
from torch import nn

from monai_mil_ext.data import SlideCache, TileGrid, write_bag
from monai_mil_ext.transforms import EncodeInstancesd, RankInstancesd, ReadTilesd, SlideFeaturesd, TileBagd
from tests.make_slide import stained, write_slide

ENCODE = EncodeInstancesd("image", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
TILES = TileBagd("image", TileGrid(32, mpp=1.0))


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "s.tif", stained((256, 320), (64, 64, 256, 192)), mpp=0.5, tile=64)


def test_a_slide_is_cut_and_encoded_and_its_place_told(slide):
    bag = SlideFeaturesd("image", TILES, ENCODE)({"image": slide, "case_id": "a"})
    expected = TILES({"image": slide})
    torch.testing.assert_close(bag["image"], expected["image"][:].mean(dim=(2, 3)))
    assert bag["coords"].tolist() == expected["coords"].tolist()
    assert (bag["tile_size"], bag["unit"], bag["source"]) == (64.0, "px", str(slide))
    assert bag["slide_mpp"] == pytest.approx(0.5, rel=1e-3)
    assert bag["spatial_shape"].tolist() == [320, 256]
    assert (tuple(bag["thumbnail"].shape), bag["thumbnail_downsample"]) == ((256, 320, 3), 1.0)


def test_slide_features_are_the_same_with_a_slide_that_stays_open(slide):
    slides = SlideCache()
    bag = SlideFeaturesd("image", TILES, ENCODE, slides=slides)({"image": slide})
    expected = SlideFeaturesd("image", TILES, ENCODE)({"image": slide})
    assert torch.equal(bag["image"], expected["image"])
    opened = slides.open_pixels(str(slide))
    assert not opened.closed
    bag = RankInstancesd(top_k=2)({**bag, "scores": torch.arange(len(bag["image"])).float()})
    shown, again = (ReadTilesd(slides=cache)(bag) for cache in (slides, None))
    assert opened.closed
    assert tuple(shown["top_tiles"].shape) == (2, 224, 224, 3)
    for name in ("top_tiles", "bottom_tiles"):
        assert torch.equal(shown[name], again[name])


def test_what_an_item_says_of_its_resolution_goes_first(slide):
    bag = SlideFeaturesd("image", TILES, ENCODE, slide_mpp=0.25)({"image": slide, "slide_mpp": 1.0})
    assert (bag["tile_size"], bag["slide_mpp"]) == (32.0, 1.0)
    bag = SlideFeaturesd("image", TILES, ENCODE, slide_mpp=0.25)({"image": slide})
    assert (bag["tile_size"], bag["slide_mpp"]) == (128.0, 0.25)


def test_features_are_read_with_their_places_in_pixels_where_that_is_known(tmp_path):
    arrays = {"features": np.eye(3, 4, dtype=np.float16), "coords": np.array([[0, 0], [112, 0], [0, 112]])}
    write_bag(tmp_path / "a.h5", arrays, {"unit": "um", "tile_size": 112.0})
    bag = SlideFeaturesd("image")({"image": tmp_path / "a.h5"})
    assert (bag["image"].dtype, bag["unit"], bag["tile_size"]) == (torch.float32, "um", 112.0)
    bag = SlideFeaturesd("image", slide_mpp=0.5)({"image": tmp_path / "a.h5"})
    assert (bag["unit"], bag["tile_size"], bag["coords"][1].tolist()) == ("px", 224.0, [224.0, 0.0])
    assert "source" not in bag


def test_features_without_coordinates_are_a_bag_all_the_same(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), dtype=np.float32))
    assert set(SlideFeaturesd("image")({"image": tmp_path / "a.npy"})) == {"image"}


def test_a_slide_without_encoder_and_two_paths_are_refused(slide):
    with pytest.raises(ValueError, match="`encode` must be given to make features of a slide"):
        SlideFeaturesd("image")({"image": slide})
    with pytest.raises(ValueError, match="`keys` must name one path of an item"):
        SlideFeaturesd(["image", "other"])
