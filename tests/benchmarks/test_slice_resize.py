"""Resizing the slices of a scan: all at once, as SliceBag does, beside MONAI's Resize of one after another."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Resize

from monai_mil_ext.transforms import SliceBag

SIDE = 224


def slice_by_slice(scan):
    """The slices of :py:class:`SliceBag`, each resized by MONAI."""
    resize = Resize((SIDE, SIDE), mode="bilinear", anti_aliasing=True)
    return torch.stack([resize(one).as_tensor() for one in SliceBag()(scan).bag.as_tensor()])


def at_once(scan):
    """One bag."""
    return SliceBag(spatial_size=SIDE)(scan).bag.as_tensor()


def head(size=512, slices=40):
    """A scan of the size of a head CT."""
    return MetaTensor(torch.rand(1, size, size, slices), affine=torch.diag(torch.tensor([0.45, 0.45, 5.0, 1.0])))


@pytest.mark.parametrize("way", [at_once, slice_by_slice], ids=["at once", "slice by slice"])
def test_slice_resize(benchmark, way):
    scan = head()
    benchmark.group = f"{scan.shape[-1]} slices of {scan.shape[1]} pixels to {SIDE}"
    benchmark(way, scan)


def test_both_show_the_same():
    scan = MetaTensor(torch.nn.functional.avg_pool3d(torch.rand(1, 64, 64, 6), 5, 1, 2))
    small = Resize((16, 16), mode="bilinear", anti_aliasing=True)
    slow = torch.stack([small(one).as_tensor() for one in SliceBag()(scan).bag.as_tensor()])
    fast = SliceBag(spatial_size=16)(scan).bag.as_tensor()
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    assert (fast[inner] - slow[inner]).abs().mean() < 0.02  # MONAI blurs with a Gaussian, this averages with a triangle
