"""Tests of SliceScoresToVolume: scores in every voxel of their slice."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import SaveImage

from monai_mil_ext.data import ScanReader
from monai_mil_ext.transforms import SliceBag, SliceBagd, SliceScoresToVolume, SliceScoresToVolumed
from tests.transforms.geometry import ORDERS, PLANES, affines, reordered, scan


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES), channels=st.integers(1, 3))
def test_slice_scores_to_volume_fills_every_voxel_of_a_slice(affine, order, plane, channels):
    volume = reordered(scan((5, 4, 3), affine), *order)
    slices = SliceBag(plane)(volume)
    scores = torch.rand(len(slices.bag), channels)
    out = SliceScoresToVolume(plane)(scores, *slices[3:])
    assert out.shape == (channels, *volume.shape[1:])
    assert out.dtype == torch.float32
    assert torch.equal(out.affine, volume.affine)
    voxels = volume.as_tensor().flatten().long()  # every voxel's own number
    for j, picture in enumerate(slices.bag):
        inside = torch.isin(voxels, picture.flatten().long())
        assert torch.equal(out.as_tensor().flatten(1)[:, inside], scores[j].unsqueeze(-1).expand(-1, int(inside.sum())))
    assert torch.equal(SliceBag(plane)(out).bag, scores[:, :, None, None].expand_as(SliceBag(plane)(out).bag))


def test_slice_scores_to_volume_of_some_slices_in_any_order():
    slices = SliceBag()(scan((5, 4, 3), np.diag([1.0, 1, -1, 1])))
    out = SliceScoresToVolume()(np.array([0.5, 0.25]), np.array([2, 0]), slices.affine, slices.spatial_shape)
    assert out[0, 0, 0].tolist() == [0.5, 0, 0.25]


@pytest.mark.parametrize(
    ("fill", "column"),
    [
        (0, [0, 0.5, 0, 0, 0, 0.1, 0, 0]),
        (-1.5, [-1.5, 0.5, -1.5, -1.5, -1.5, 0.1, -1.5, -1.5]),
        ("nearest", [0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1]),
        ("linear", [0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1]),
    ],
)
def test_slice_scores_to_volume_fills_slices_without_a_score(fill, column):
    slices = SliceBag()(scan((5, 4, 8), np.diag([1.0, 1, 2.5, 1])))
    scores = torch.tensor([[0.1, 1.0], [0.5, 5.0]])
    out = SliceScoresToVolume(fill=fill)(scores, [5, 1], slices.affine, slices.spatial_shape)
    np.testing.assert_allclose(out[0, 2, 2], column, rtol=1e-6)
    assert out[1, 0, 0, 1] == 5
    turned = SliceScoresToVolume(fill=fill)(scores, [5, 1], slices.affine * torch.tensor([1, 1, -1, 1]), [5, 4, 8])
    assert torch.equal(turned.as_tensor(), out.as_tensor().flip(-1))
    item = {"x": scores, "slice_index": [5, 1], "affine": slices.affine, "spatial_shape": slices.spatial_shape}
    assert torch.equal(SliceScoresToVolumed("x", fill=fill)(item)["x"], out)
    empty = SliceScoresToVolume(fill=fill)(torch.zeros(0), torch.zeros(0), slices.affine, slices.spatial_shape)
    assert empty.unique().tolist() == [0 if isinstance(fill, str) else fill]


def test_slice_scores_to_volume_names_an_unknown_fill():
    with pytest.raises(ValueError, match=r"`fill` must be one of 'nearest', 'linear', got 'linar'; did you mean"):
        SliceScoresToVolume(fill="linar")


def test_slice_scores_to_volume_keeps_the_geometry_in_a_file(tmp_path):
    affine = np.array([[0.0, -2.0, 0.1, 5.0], [0.8, 0.0, 0.0, -7.0], [0.1, 0.0, 3.0, 11.0], [0, 0, 0, 1]])
    slices = SliceBag("coronal")(scan((5, 4, 3), affine))
    out = SliceScoresToVolume("coronal")(torch.rand(len(slices.bag)), *slices[3:])
    SaveImage(
        tmp_path,
        "",
        separate_folder=False,
        print_log=False,
        output_name_formatter=lambda *_: {"subject": "scores", "idx": None},
    )(out)
    image = nib.load(tmp_path / "scores.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(image.get_fdata().astype(np.float32), out[0].numpy())
    np.testing.assert_allclose(
        ScanReader().get_data(ScanReader().read(tmp_path / "scores.nii.gz"))[1]["affine"], affine, atol=1e-5
    )


def test_slice_scores_to_volumed_drops_padding():
    slices = SliceBag()(scan((5, 4, 3), np.eye(4)))
    item = {
        "attention": torch.tensor([0.2, 0.3, 0.5, 9.0]),
        "slice_index": torch.tensor([0, 1, 2, 0]),
        "affine": slices.affine,
        "spatial_shape": slices.spatial_shape,
        "mask": torch.tensor([True, True, True, False]),
    }
    out = SliceScoresToVolumed(["attention", "scores"], allow_missing_keys=True)(item)
    np.testing.assert_allclose(out["attention"][0, 1, 1], [0.2, 0.3, 0.5])
    assert isinstance(out["attention"], MetaTensor)
    with pytest.raises(ValueError, match="`slice_index` must name a slice once, got repeated ones"):
        SliceScoresToVolumed("attention")({k: v for k, v in item.items() if k != "mask"})


@pytest.mark.parametrize(
    ("scores", "index", "match"),
    [
        (torch.ones(2), [0, 3], "`slice_index` must be 0 to 2, got 0 to 3"),
        (torch.ones(2), [-1, 0], "`slice_index` must be 0 to 2, got -1 to 0"),
        (torch.ones(2), [0], r"for `slice_index` \(N,\), got \(2, 1\) for \(1,\)"),
        (torch.ones(2, 1, 1), [0, 1], r"`scores` must have shape \(N,\) or \(N, A\) .*got \(2, 1, 1\)"),
    ],
)
def test_slice_scores_to_volume_names_scores_of_other_slices(scores, index, match):
    with pytest.raises(ValueError, match=match):
        SliceScoresToVolume()(scores, torch.tensor(index), torch.eye(4), [5, 4, 3])


@pytest.mark.parametrize("plane", PLANES)
def test_slice_scores_to_volumed_takes_the_plane_of_the_slices(plane):
    item = SliceBagd("image", plane=plane)({"image": scan((5, 4, 3), np.diag([1.0, 1, -1, 1]))})
    assert item["plane"] == plane
    item["scores"] = torch.rand(len(item["slice_index"]))
    expected = SliceScoresToVolume(plane)(item["scores"], item["slice_index"], item["affine"], item["spatial_shape"])
    for transform in (SliceScoresToVolumed("scores"), SliceScoresToVolumed("scores", plane=plane)):
        assert torch.equal(transform(item)["scores"], expected)
    other = next(name for name in PLANES if name != plane)
    with pytest.raises(ValueError, match=f"`plane` must be that of the slices, '{plane}', or None, got '{other}'"):
        SliceScoresToVolumed("scores", plane=other)(item)
