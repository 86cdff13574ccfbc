"""Speed of resizing the slices of a scan: all at once by SliceBag, and one by one by MONAI."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Resize

from monai_mil_ext.transforms import SliceBag

SIDE = 224


def slice_by_slice(scan):
    """Resize the slices of :py:class:`SliceBag` one by one with MONAI."""
    resize = Resize((SIDE, SIDE), mode="bilinear", anti_aliasing=True)
    return torch.stack([resize(image).as_tensor() for image in SliceBag()(scan).bag.as_tensor()])


def at_once(scan):
    """Resize all slices at once with :py:class:`SliceBag`."""
    return SliceBag(spatial_size=SIDE)(scan).bag.as_tensor()


def head(size=512, slices=40):
    """Create a scan of the size of a head CT."""
    return MetaTensor(torch.rand(1, size, size, slices), affine=torch.diag(torch.tensor([0.45, 0.45, 5.0, 1.0])))


@pytest.mark.parametrize("way", [at_once, slice_by_slice], ids=["at once", "slice by slice"])
def test_slice_bag_resize_speed(benchmark, way):
    scan = head()
    benchmark.group = f"{scan.shape[-1]} slices of {scan.shape[1]} pixels to {SIDE}"
    benchmark(way, scan)


def test_slice_bag_resize_is_close_to_that_of_monai():
    scan = MetaTensor(torch.nn.functional.avg_pool3d(torch.rand(1, 64, 64, 6), 5, 1, 2))
    small = Resize((16, 16), mode="bilinear", anti_aliasing=True)
    slow = torch.stack([small(image).as_tensor() for image in SliceBag()(scan).bag.as_tensor()])
    fast = SliceBag(spatial_size=16)(scan).bag.as_tensor()
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    assert (fast[inner] - slow[inner]).abs().mean() < 0.02  # MONAI blurs with a Gaussian, this averages with a triangle
