"""Tests of SlideFeaturesd: features of slides, made or read, and the positions of their tiles."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from monai_mil_ext.data import SlideCache, SlideFile, TileGrid, write_bag
from monai_mil_ext.transforms import EncodeInstancesd, SlideFeaturesd, TileBagd
from tests.data import bag_files as make
from tests.data.slides.containers import write_scn
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
    bag = SlideFeaturesd("image")({"image": tmp_path / "a.npy"})
    assert (set(bag), bag["container"]) == ({"image", "container"}, "npy features")


def test_slide_featuresd_refuse_a_slide_without_encoder_and_two_paths(slide):
    with pytest.raises(ValueError, match="`encode` must be given to compute features of a slide"):
        SlideFeaturesd("image")({"image": slide})
    with pytest.raises(ValueError, match="`keys` must name one path of an item"):
        SlideFeaturesd(["image", "other"])


@pytest.mark.parametrize("slide_mpp", [-1.0, 0, float("nan"), "abc"])
def test_slide_featuresd_refuse_a_resolution_that_no_slide_has(slide_mpp):
    with pytest.raises(ValueError, match="`slide_mpp` must be positive and finite, got"):
        SlideFeaturesd("image", slide_mpp=slide_mpp)


def features_of(slide, path, spec=None, **attributes):
    """Write features of the tiles of a slide, as TRIDENT does, or with ``spec`` as the attributes of coordinates."""
    bag = TILES({"image": slide})
    size = {"level0_width": 320, "level0_height": 256, "level0_magnification": 20, "target_magnification": 10}
    spec = {"patch_size": 32, "patch_size_level0": 64, **size} if spec is None else spec
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = np.ones((len(bag["coords"]), 4), np.float32), bag["coords"].numpy()
        file["coords"].attrs.update({**spec, **attributes})
    return path


PLACES = ("coords", "tile_size", "unit", "spatial_shape", "thumbnail", "thumbnail_downsample", "thumbnail_origin")


def test_slide_featuresd_of_a_file_with_its_slide_show_what_the_slide_shows(slide, tmp_path):
    path = features_of(slide, tmp_path / "s.h5")
    bag = SlideFeaturesd("image")({"image": path, "source": str(slide)})
    expected = SlideFeaturesd("image", TILES, ENCODE)({"image": slide})
    for key in (*PLACES, "bounds"):
        assert np.array_equal(bag[key], expected[key]), key
    assert (bag["source"], bag["container"]) == (str(slide), "TRIDENT features")
    assert bag["slide_mpp"] == pytest.approx(0.5, rel=1e-3)
    assert not {"notes", "pictures_missing"} & set(bag)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"level0_width": 640}, "the features are of a slide of 640 x 256 pixels, the slide has 320 x 256"),
        (
            {"level0_magnification": 40},
            "a pixel of the features' slide is of magnification 40, one of the slide of 0.5",
        ),
    ],
)
def test_slide_featuresd_draw_nothing_on_another_slide(slide, tmp_path, stated, reason):
    path = features_of(slide, tmp_path / "s.h5", **stated)
    bag = SlideFeaturesd("image")({"image": path, "source": str(slide)})
    assert bag["pictures_missing"].startswith(reason)
    assert not {"source", "thumbnail", "bounds"} & set(bag)
    assert bag["image"].shape == (6, 4)
    assert bag["spatial_shape"].tolist() == [stated.get("level0_width", 320), 256]


def test_slide_featuresd_draw_nothing_outside_of_a_slide(slide, tmp_path):
    small = write_slide(tmp_path / "small.tif", stained((128, 160), (0, 0, 160, 128)), mpp=0.5, tile=64)
    bag = SlideFeaturesd("image")({"image": features_of(slide, tmp_path / "s.h5", {}), "source": str(small)})
    assert "tiles begin outside of the slide of 160 x 128 pixels" in bag["pictures_missing"]


def test_slide_featuresd_that_state_no_slide_are_drawn_with_a_note(slide, tmp_path):
    """CLAM's files of features have coordinates only."""
    bag = SlideFeaturesd("image")({"image": features_of(slide, tmp_path / "s.h5", {}), "source": str(slide)})
    assert (bag["container"], bag["tile_size"], bag["spatial_shape"].tolist()) == ("CLAM features", 64.0, [320, 256])
    estimated, unchecked = bag["notes"].split("; ")
    assert estimated == "the size of a tile was estimated from the distance of the tiles"
    assert unchecked.startswith("the features state neither size nor resolution of their slide")


@pytest.mark.parametrize(
    ("size", "origin", "note"),
    [
        ((2000, 1500), (0, 0), None),
        ((320, 256), (1001, 700), "the features count tiles from the scanned region of the slide"),
        (None, (0, 0), "the features do not state the size of their slide: tiles were placed in its plane"),
    ],
)
def test_slide_featuresd_place_tiles_that_count_from_plane_or_bounds(size, origin, note, tmp_path):
    """In a slide whose scanned region lies in a larger plane, as tools of either kind count."""
    image = stained((256, 320), (64, 64, 256, 192))
    slide = write_scn(tmp_path / "s.scn", image, 0.5, (2000, 1500), (1001, 700))
    sides = {} if size is None else {"level0_width": size[0], "level0_height": size[1]}
    spec = {"patch_size": 32, "patch_size_level0": 64, "level0_magnification": 20, "target_magnification": 10, **sides}
    path = features_of(slide, tmp_path / "s.h5", spec)
    with h5py.File(path, "r+") as file:
        file["coords"][:] = file["coords"][:] - origin
    bag = SlideFeaturesd("image")({"image": path, "source": str(slide)})
    expected = SlideFeaturesd("image", TILES, ENCODE)({"image": slide})
    for key in (*PLACES, "bounds"):
        assert np.array_equal(bag[key], expected[key]), key
    assert bag.get("notes", "").startswith(note or "")
    assert ("notes" in bag) == (note is not None)


def test_slide_featuresd_keep_what_features_state_where_nothing_can_be_drawn(tmp_path):
    """Coordinates that count from the bounds stay as they are if the resolution is that of another slide."""
    image = stained((256, 320), (64, 64, 256, 192))
    slide = write_scn(tmp_path / "s.scn", image, 0.5, (2000, 1500), (1001, 700))
    spec = {"patch_size": 32, "patch_size_level0": 64, "level0_magnification": 80, "target_magnification": 10}
    path = features_of(slide, tmp_path / "s.h5", {**spec, "level0_width": 320, "level0_height": 256})
    with h5py.File(path, "r+") as file:
        file["coords"][:] = stated = file["coords"][:] - (1001, 700)
    bag = SlideFeaturesd("image")({"image": path, "source": str(slide)})
    assert "magnification 80" in bag["pictures_missing"]
    assert np.array_equal(bag["coords"], stated)
    assert (bag["spatial_shape"].tolist(), "notes" in bag, "bounds" in bag) == ([320, 256], False, False)


@pytest.mark.parametrize(("content", "reason"), [(None, "exist"), (b"no slide", "be a slide that can be read")])
def test_slide_featuresd_keep_features_of_a_slide_that_cannot_be_read(slide, tmp_path, content, reason):
    other = tmp_path / "Doe_Jane.svs"
    if content is not None:
        other.write_bytes(content)
    bag = SlideFeaturesd("image")({"image": features_of(slide, tmp_path / "s.h5"), "source": str(other)})
    assert bag["pictures_missing"].startswith("the slide can't be read: `slide` must be")
    assert reason in bag["pictures_missing"]
    assert "Doe" not in bag["pictures_missing"]
    assert bag["slide_mpp"] == 0.5  # from the magnification


def test_slide_featuresd_convert_micrometers_with_the_resolution_of_the_slide(slide, tmp_path):
    arrays = {"features": np.eye(3, 4), "coords": np.array([[32.0, 32.0], [64, 32], [32, 64]])}
    write_bag(tmp_path / "a.h5", arrays, {"unit": "um", "tile_size": 32.0})
    bag = SlideFeaturesd("image")({"image": tmp_path / "a.h5", "source": str(slide)})
    assert (bag["unit"], bag["tile_size"]) == ("px", pytest.approx(64, rel=1e-3))
    assert bag["coords"][1].tolist() == pytest.approx([128, 64], rel=1e-3)
    blind = write_slide(tmp_path / "blind.tif", stained((256, 320), (64, 64, 256, 192)), mpp=None, tile=64)
    bag = SlideFeaturesd("image")({"image": tmp_path / "a.h5", "source": str(blind)})
    assert bag["pictures_missing"] == "the unit of the coordinates is 'um', and `slide_mpp` is not known"


def test_slide_featuresd_derive_the_resolution_from_the_magnification(slide, tmp_path):
    path = features_of(slide, tmp_path / "s.h5", level0_magnification=40)
    bag = SlideFeaturesd("image")({"image": path})
    assert bag["slide_mpp"] == 0.25
    assert bag["notes"] == "slide_mpp 0.25 is derived from the magnification 40x that the features state"
    assert SlideFeaturesd("image", slide_mpp=0.23)({"image": path})["slide_mpp"] == 0.23
    assert "notes" not in SlideFeaturesd("image")({"image": path, "slide_mpp": "0.23"})


@pytest.mark.parametrize(
    ("name", "write", "tile_size"),
    [
        ("CLAM", lambda folder: make.clam(folder / "a.h5"), 512),
        ("STAMP", lambda folder: make.stamp(folder / "a.h5"), 512),  # 256 micrometers
        ("wsidata", lambda folder: make.wsidata(folder / "a.zarr"), 256),
    ],
)
def test_slide_featuresd_place_the_tiles_of_other_tools_on_their_slide(name, write, tile_size, tmp_path):
    slide = write_slide(tmp_path / "a.tif", stained((1536, 2048), (0, 0, 2048, 1536)), mpp=0.5)
    bag = SlideFeaturesd("image")({"image": write(tmp_path), "source": str(slide)})
    assert (bag["container"], bag["unit"]) == (f"{name} features", "px")
    assert bag["tile_size"] == pytest.approx(tile_size, rel=1e-3)
    corners = make.GRID[::-1] if name == "wsidata" else make.GRID
    np.testing.assert_allclose(bag["coords"], corners * tile_size, rtol=1e-3)
    assert bag["slide_mpp"] == pytest.approx(0.5, rel=1e-3)
    assert ("thumbnail" in bag, "pictures_missing" in bag) == (True, False)


def test_slide_featuresd_know_the_resolution_of_our_own_files(tmp_path):
    """Tiles of 224 pixels at 0.5 um that cover 443 pixels of level 0."""
    arrays = {"features": np.eye(3, 4), "coords": np.zeros((3, 2))}
    write_bag(tmp_path / "a.h5", arrays, {"unit": "px", "tile_size": 443.0, "mpp": 0.5, "input_size": 224})
    assert SlideFeaturesd("image")({"image": tmp_path / "a.h5"})["slide_mpp"] == pytest.approx(0.5 * 224 / 443)


def test_slide_featuresd_take_a_given_resolution_over_what_features_and_slide_state(slide, tmp_path):
    path = features_of(slide, tmp_path / "s.h5", level0_magnification=40)
    bag = SlideFeaturesd("image", slide_mpp=0.3)({"image": path, "source": str(slide)})
    assert (bag["slide_mpp"], "thumbnail" in bag) == (0.3, True)


def test_slide_featuresd_without_coordinates_say_why_there_are_no_pictures(slide, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), dtype=np.float32))
    bag = SlideFeaturesd("image")({"image": tmp_path / "a.npy", "source": str(slide)})
    assert bag["pictures_missing"] == "the features come without coordinates"
    assert "source" not in bag
