"""Tests of SlideFeaturesd: features of slides, made or read, and the positions of their tiles."""

import numpy as np
import pytest
import torch
from torch import nn

from monai_mil_ext.data import SlideCache, SlideFile, TileGrid, write_bag
from monai_mil_ext.transforms import EncodeInstancesd, SlideFeaturesd, TileBagd
from tests.make_slide import stained, write_slide

ENCODE = EncodeInstancesd("image", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
TILES = TileBagd("image", TileGrid(32, mpp=1.0))


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "s.tif", stained((256, 320), (64, 64, 256, 192)), mpp=0.5, tile=64)


def test_slide_featuresd_of_a_slide_have_coordinates_and_thumbnail(slide):
    bag = SlideFeaturesd("image", TILES, ENCODE)({"image": slide, "case_id": "a"})
    expected = TILES({"image": slide})
    torch.testing.assert_close(bag["image"], expected["image"][:].mean(dim=(2, 3)))
    assert bag["coords"].tolist() == expected["coords"].tolist()
    assert (bag["tile_size"], bag["unit"], bag["source"]) == (64.0, "px", str(slide))
    assert bag["slide_mpp"] == pytest.approx(0.5, rel=1e-3)
    assert bag["spatial_shape"].tolist() == [320, 256]
    assert (tuple(bag["thumbnail"].shape), bag["thumbnail_downsample"]) == ((256, 320, 3), 1.0)


def test_slide_featuresd_are_the_same_with_a_slide_that_stays_open(slide):
    slides = SlideCache()
    bag = SlideFeaturesd("image", TILES, ENCODE, slides=slides)({"image": slide})
    expected = SlideFeaturesd("image", TILES, ENCODE)({"image": slide})
    assert torch.equal(bag["image"], expected["image"])
    assert not slides.open_pixels(str(slide)).closed


def test_slide_featuresd_close_the_slide_after_an_error(slide, monkeypatch):
    closed, close = [], SlideFile.close
    monkeypatch.setattr(SlideFile, "close", lambda self: (closed.append(self.name), close(self))[1])
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        SlideFeaturesd("image", TILES, lambda data: 1 / 0)({"image": slide})
    assert closed.count(slide.name) >= 1


def test_slide_featuresd_prefer_the_resolution_of_the_item(slide):
    bag = SlideFeaturesd("image", TILES, ENCODE, slide_mpp=0.25)({"image": slide, "slide_mpp": 1.0})
    assert (bag["tile_size"], bag["slide_mpp"]) == (32.0, 1.0)
    bag = SlideFeaturesd("image", TILES, ENCODE, slide_mpp=0.25)({"image": slide})
    assert (bag["tile_size"], bag["slide_mpp"]) == (128.0, 0.25)


def test_slide_featuresd_prefer_the_magnification_of_the_item(tmp_path):
    path = write_slide(tmp_path / "s.tif", stained((256, 320), (0, 0, 256, 256)), mpp=None)
    features = SlideFeaturesd("image", TileBagd("image", TileGrid(32, mpp=1.0), magnification=20), ENCODE)
    assert features({"image": path})["slide_mpp"] == 0.5
    assert features({"image": path, "magnification": 40})["slide_mpp"] == 0.25


def test_slide_featuresd_of_a_file_have_coordinates_in_pixels_if_known(tmp_path):
    arrays = {"features": np.eye(3, 4, dtype=np.float16), "coords": np.array([[0, 0], [112, 0], [0, 112]])}
    write_bag(tmp_path / "a.h5", arrays, {"unit": "um", "tile_size": 112.0})
    bag = SlideFeaturesd("image")({"image": tmp_path / "a.h5"})
    assert (bag["image"].dtype, bag["unit"], bag["tile_size"]) == (torch.float32, "um", 112.0)
    bag = SlideFeaturesd("image", slide_mpp=0.5)({"image": tmp_path / "a.h5"})
    assert (bag["unit"], bag["tile_size"], bag["coords"][1].tolist()) == ("px", 224.0, [224.0, 0.0])
    assert "source" not in bag


def test_slide_featuresd_need_no_coordinates(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), dtype=np.float32))
    assert set(SlideFeaturesd("image")({"image": tmp_path / "a.npy"})) == {"image"}


def test_slide_featuresd_refuse_a_slide_without_encoder_and_two_paths(slide):
    with pytest.raises(ValueError, match="`encode` must be given to compute features of a slide"):
        SlideFeaturesd("image")({"image": slide})
    with pytest.raises(ValueError, match="`keys` must name one path of an item"):
        SlideFeaturesd(["image", "other"])


@pytest.mark.parametrize("slide_mpp", [-1.0, 0, float("nan"), "abc"])
def test_slide_featuresd_refuse_a_resolution_that_no_slide_has(slide_mpp):
    with pytest.raises(ValueError, match="`slide_mpp` must be positive and finite, got"):
        SlideFeaturesd("image", slide_mpp=slide_mpp)
