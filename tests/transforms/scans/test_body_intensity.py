"""Tests of ScaleBodyIntensity: independent of the scanner's units, of orientation and of the air around the body."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch.nn import functional as F

from monai_mil_ext.transforms import ScaleBodyIntensity, ScaleBodyIntensityd
from tests.transforms.geometry import ORDERS, reordered

MODES = ("percentile", "percentile(0.5, 99.5)", "zscore", "zscore(2)")


def head(air=4, noise=0.0, dark=200.0, seed=0):
    """Return a head (1, s, s, s) of scalp, brain and a dark ventricle with a bright lesion, in air with noise."""
    size = 24 + 2 * air
    axes = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2] * 3, indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()
    volume = torch.zeros(size, size, size)
    for reach, value in ((12, 900.0), (11, 500.0), (4, dark)):
        volume[radius < reach] = value
    volume[size // 2 + 5 : size // 2 + 8, size // 2 : size // 2 + 3, size // 2 : size // 2 + 3] = 1000.0
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(2, size, size, size, generator=generator) * noise
    return ((volume + parts[0]).square() + parts[1].square()).sqrt()[None]


def test_percentiles_are_those_inside_the_body():
    scan = torch.zeros(1, 20, 20, 20)
    body = torch.arange(1000.0).view(10, 10, 10) + 50
    scan[0, 5:15, 5:15, 5:15] = body
    low, high = np.percentile(body.numpy(), [1, 99])
    expected = ((scan - low) / (high - low)).clip(0, 1)
    torch.testing.assert_close(ScaleBodyIntensity()(scan), expected)
    low, high = np.percentile(body.numpy(), [5, 90])
    torch.testing.assert_close(ScaleBodyIntensity("percentile(5,90)")(scan), ((scan - low) / (high - low)).clip(0, 1))


def test_zscore_maps_mean_and_deviations_of_the_body():
    scan = torch.zeros(1, 20, 20, 20)
    body = torch.randn(10, 10, 10, generator=torch.Generator().manual_seed(0)) * 40 + 500
    scan[0, 5:15, 5:15, 5:15] = body
    for mode, limit in (("zscore", 3), ("zscore(2)", 2)):
        z = (body - body.mean()) / body.std(correction=0)
        inside = ScaleBodyIntensity(mode)(scan)[0, 5:15, 5:15, 5:15]
        torch.testing.assert_close(inside, (z.clip(-limit, limit) + limit) / (2 * limit))


@given(
    values=st.lists(st.integers(-1000, 1000), min_size=27, max_size=27).filter(lambda v: len(set(v)) > 1),
    gain=st.floats(0.01, 100),
    offset=st.floats(-1000, 1000),
    mode=st.sampled_from(MODES),
)
def test_scale_and_offset_of_the_scanner_do_not_matter(values, gain, offset, mode):
    scan = torch.tensor(values, dtype=torch.float64).view(1, 3, 3, 3)
    scale = ScaleBodyIntensity(mode)
    torch.testing.assert_close(scale(gain * scan + offset), scale(scan), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("gain", "offset"), [(0.01, 0), (7.3, 12), (1000, -32768), (1, 1e5)])
def test_scale_and_offset_of_a_noisy_head_do_not_matter(mode, gain, offset):
    scan, scale = head(noise=20).double(), ScaleBodyIntensity(mode)
    torch.testing.assert_close(scale(gain * scan + offset), scale(scan), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_orientation_does_not_matter(mode):
    scan, scale = MetaTensor(head(noise=20), affine=torch.eye(4)), ScaleBodyIntensity(mode)
    scaled = scale(scan)
    for axes, flips in ORDERS[::5]:
        assert torch.equal(scale(reordered(scan, axes, flips)), reordered(scaled, axes, flips))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.0, -5.0])
def test_padding_with_air_does_not_matter(mode, value):
    scan = head(air=1) + value
    padded = ScaleBodyIntensity(mode)(F.pad(scan, (30,) * 6, value=value))
    torch.testing.assert_close(padded[:, 30:-30, 30:-30, 30:-30], ScaleBodyIntensity(mode)(scan), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_amount_of_noisy_air_hardly_matters(mode):
    heads = [ScaleBodyIntensity(mode)(head(air, noise=15))[0] for air in (0, 2, 8, 24)]
    cores = [scan[tuple(slice((n - 24) // 2, (n + 24) // 2) for n in scan.shape)] for scan in heads]
    means = torch.tensor([[core[11:13, 11:13, 11:13].mean(), core[5:8, 11:13, 11:13].mean()] for core in cores])
    assert float((means - means[1]).abs().max()) < 0.03  # of ventricle and brain; the noise itself differs


@pytest.mark.parametrize("damage", ["bright artifact", "undershoot", "defaced"])
def test_artifacts_hardly_change_the_brain(damage):
    scan = head(noise=15)
    expected = ScaleBodyIntensity()(scan)
    if damage == "bright artifact":
        scan[0, :3, :3, :3] = 50000
    elif damage == "undershoot":
        scan[0, 0, 0, :5] = -800
    else:
        scan[0, 17:, :12] = 0
    core = (0, slice(7, 16), slice(17, 26), slice(7, 26))
    assert float((ScaleBodyIntensity()(scan)[core] - expected[core]).abs().max()) < 0.05


def test_a_skull_stripped_brain_keeps_its_dark_tissue():
    scan = head(dark=250)
    scan[scan == 900] = 0
    scaled = ScaleBodyIntensity()(scan)
    assert scaled[scan == 0].max() == 0
    assert 0 <= float(scaled[scan == 250].mean()) < float(scaled[scan == 500].mean()) <= 1


def test_a_body_of_one_value_and_channels_of_their_own():
    scan = torch.zeros(2, 6, 6, 6)
    scan[0, 2:4, 2:4, 2:4], scan[1, 2:4, 2:4, 2:4] = 7, -3
    for mode in MODES:
        scaled = ScaleBodyIntensity(mode)(scan)
        assert scaled[0].unique().tolist() == [0, 1]
        assert scaled[1].unique().tolist() == [0, 1]
    assert torch.equal(scaled[0], 1 - scaled[1])


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_scan_is_refused(value):
    with pytest.raises(ValueError, match=rf"`image` must have voxels that differ, got {value:g} in all of them\."):
        ScaleBodyIntensity()(torch.full((1, 3, 3, 3), value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_voxels_that_are_not_finite_are_refused(value):
    scan = head()
    scan[0, 3, 3, 3] = value
    with pytest.raises(ValueError, match="`image` must have finite voxels, got some that are NaN or infinite"):
        ScaleBodyIntensity()(scan)


@pytest.mark.parametrize(
    "mode",
    ["percentiles", "", None, 3, "percentile(1)", "percentile(99, 1)", "percentile(a, b)", "zscore(0)", "zscore()"],
)
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match="`mode` must be 'percentile' or 'zscore', or one with numbers"):
        ScaleBodyIntensity(mode)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("percentile", "percentile(1, 99)"),
        ("percentile( 0.5,99.5 )", "percentile(0.5, 99.5)"),
        ("zscore", "zscore(3)"),
        ("zscore(2.5)", "zscore(2.5)"),
    ],
)
def test_the_name_of_a_normalization_makes_it_again(mode, name):
    transform = ScaleBodyIntensityd("image", mode)
    assert transform.source_values == {"normalization": name}
    again = ScaleBodyIntensityd("image", name)
    assert (again.source_values, again.scale.numbers) == (transform.source_values, transform.scale.numbers)
