"""Tests of the pictures of scans."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from monai_mil_ext.apps.study import ScanPictures
from monai_mil_ext.data import FeatureCache
from monai_mil_ext.transforms import EncodeInstancesd, LoadScand, SliceBagd, scan_preprocessing
from tests.scans import write_nifti

SLICES = 6


class Mean(nn.Module):
    """Encoder that must not run for a picture."""

    calls = 0

    def forward(self, x):
        """Return the mean (N, 1) of images (N, C, h, w)."""
        Mean.calls += 1
        return x.mean(dim=(2, 3))


def write_scan(path, slices=SLICES):
    """Write a scan whose slice 4 has a bright square, and the others are dark."""
    array = np.zeros((32, 32, slices), dtype=np.float32)
    array[8:24, 8:24, 4] = 1
    return write_nifti(path, array, np.diag([1.0, 1.0, 5.0, 1.0]))


@pytest.fixture
def cache(tmp_path):
    steps = [
        LoadScand("image", hounsfield=False),
        SliceBagd("image", spatial_size=32),
        EncodeInstancesd("image", Mean()),
    ]
    return FeatureCache(tmp_path / "features", scan_preprocessing(steps), ("image", "position"), progress=False)


@pytest.fixture
def item(cache, tmp_path):
    scan = write_scan(tmp_path / "DOE_JOHN.nii.gz")
    return cache([{"case_id": "a", "patient": "p", "image": str(scan)}])[0]


def attention_of(number, count=SLICES):
    weights = np.full(count, 0.02)
    weights[number] = 1 - weights[:-1].sum()
    return weights


def brightest(pictures):
    """Return the part of bright pixels in the upper third, where the slices are."""
    image = np.asarray(Image.open(io.BytesIO(pictures[0])).convert("L"), dtype=float)
    top = image[: len(image) // 3, : image.shape[1] // 4]  # the first slice
    return ((top > 200) & (top < 256)).mean()


def test_the_slice_with_the_most_attention_is_drawn_first(cache, item):
    draw, calls = ScanPictures(cache), Mean.calls
    bright, dark = (draw(item, attention_of(number)) for number in (4, 1))
    assert len(bright) == len(dark) == 1
    assert Mean.calls == calls  # slices as they were before the encoder
    assert brightest(bright) > brightest(dark) + 0.05


def test_the_picture_is_small_and_names_no_file(cache, item):
    (picture,) = ScanPictures(cache)(item, attention_of(4))
    assert picture.startswith(b"\xff\xd8")
    assert len(picture) < 250_000
    assert b"research use only" in picture
    assert b"JOHN" not in picture


@pytest.mark.parametrize("how", ["removed", "damaged", "other slices", "unknown", "patient"])
def test_a_scan_that_cannot_be_drawn_has_no_picture(cache, item, tmp_path, how):
    scan = tmp_path / "DOE_JOHN.nii.gz"
    if how == "removed":
        scan.unlink()
    elif how == "damaged":
        scan.write_bytes(b"damaged")
    elif how == "other slices":
        write_scan(scan, slices=9)
    elif how == "unknown":
        item = {**item, "image": str(tmp_path / "other.h5")}
    else:
        item = {**item, "image": [item["image"]] * 2}
    assert ScanPictures(cache)(item, attention_of(4)) == []


def test_a_mistake_in_the_program_is_not_hidden(cache, item):
    draw = ScanPictures(cache)
    draw._plot = lambda *_: torch.zeros(1).no_such_method()
    with pytest.raises(AttributeError, match="no_such_method"):
        draw(item, attention_of(4))
