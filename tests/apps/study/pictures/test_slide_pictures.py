"""Tests of the pictures of slides."""

import io

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.apps.study import SlidePictures
from monai_mil_ext.data import FeatureCache, write_bag
from tests.bundles.wsi import write_small_slide

CORNERS = np.array([[x, y] for y in (64, 128) for x in (64, 128, 192)])
SQUARE = {"unit": "px", "tile_size": 64.0, "spatial_shape": np.array([320, 256])}


@pytest.fixture
def item(tmp_path):
    (tmp_path / "slides").mkdir()
    write_small_slide(tmp_path / "slides" / "s1.tif")
    write_bag(tmp_path / "s1.h5", {"features": np.ones((6, 3), np.float32), "coords": CORNERS}, SQUARE)
    return {"case_id": "a", "patient": "p", "image": str(tmp_path / "s1.h5")}


ATTENTION = np.array([0.05, 0.05, 0.05, 0.05, 0.05, 0.75])


def test_slides_of_feature_files_have_a_map_and_tiles(item, tmp_path):
    pictures = SlidePictures(slide_dir=tmp_path / "slides", top_k=4)(item, ATTENTION)
    assert [picture[:2] for picture in pictures] == [b"\xff\xd8"] * 2
    assert all(len(picture) < 250_000 and b"research use only" in picture for picture in pictures)
    plain = SlidePictures(slide_dir=tmp_path / "slides", top_k=4)(item, ATTENTION[::-1].copy())
    shown = [np.asarray(Image.open(io.BytesIO(p[0])).convert("L"), dtype=float) for p in (pictures, plain)]
    differs = np.abs(shown[0] - shown[1]) > 40
    columns = np.flatnonzero(differs.any(axis=0))
    assert columns.min() > shown[0].shape[1] * 0.3  # the thumbnail at the left stays as it is


def test_slides_of_a_cache_have_pictures(item, tmp_path):
    features = np.ones((6, 3), np.float32)
    columns = {"image": features, "coords": CORNERS, **SQUARE}
    keys = ("image", "coords", "tile_size", "unit", "spatial_shape")
    cache = FeatureCache(tmp_path / "cache", lambda given: {**given, **columns}, keys, "f" * 64, progress=False)
    (made,) = cache([{"case_id": "a", "patient": "p", "image": str(tmp_path / "slides" / "s1.tif")}])
    assert len(SlidePictures(cache)(made, ATTENTION)) == 2
    assert SlidePictures()(made, ATTENTION) == []


@pytest.mark.parametrize("how", ["removed", "damaged", "another", "fewer", "patient", "several"])
def test_a_slide_that_cannot_be_drawn_has_no_pictures(item, tmp_path, how):
    slide, draw = tmp_path / "slides" / "s1.tif", SlidePictures(slide_dir=tmp_path / "slides")
    attention = ATTENTION
    if how == "removed":
        slide.unlink()
    elif how == "damaged":
        slide.write_bytes(b"damaged")
    elif how == "another":
        write_bag(item["image"], {"features": np.ones((6, 3)), "coords": CORNERS * 9}, SQUARE)
    elif how == "fewer":
        attention = ATTENTION[:4]
    elif how == "patient":
        item = {**item, "image": [item["image"]] * 2}
    else:
        (tmp_path / "slides" / "more").mkdir()
        write_small_slide(tmp_path / "slides" / "more" / "s1.tif")
    assert draw(item, attention) == []


def test_the_folder_of_slides_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="`slide_dir` must be a folder that exists"):
        SlidePictures(slide_dir=tmp_path / "none")
