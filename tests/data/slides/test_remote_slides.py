"""Tests of slides in an object store, which are read from a copy."""

import pickle

import numpy as np
import tifffile

from monai_mil_ext.data import SlideFile, SlideTiles, list_slides
from monai_mil_ext.utils.remote import ObjectPath

PIXELS = np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)


def test_a_slide_of_a_store_is_read_as_that_of_the_disk(memory, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(64, 64), photometric="rgb")
    place = ObjectPath(memory) / "slides" / "DOE_JOHN.tif"
    place.write_bytes((tmp_path / "a.tif").read_bytes())
    assert [item["image"] for item in list_slides(place.parent)] == [str(place)]
    with SlideFile(place, "tifffile", mpp=0.5) as slide:
        assert (slide.name, str(slide.source)) == ("DOE_JOHN.tif", str(place))
        assert np.array_equal(slide.read(0, 10, 20, 30, 40), PIXELS[20:60, 10:40])
        assert "DOE" not in str(slide.path)
    tiles = pickle.loads(pickle.dumps(SlideTiles(place, [(64, 0)], 64, 1.0, "tifffile")))  # noqa: S301 - of this process
    assert tiles.path == str(place)
    assert np.allclose(255 * np.asarray(tiles[0:1])[0].transpose(1, 2, 0), PIXELS[:64, 64:128])
