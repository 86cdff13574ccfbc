"""Tests of SliceBagd with MONAI's Invertd: scores in the voxels of the loaded scan, and lazy scans."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd, Spacingd
from monai.transforms.lazy import functional
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate, fingerprint
from monai_mil_ext.networks.nets import ABMIL, BagOutputWrapper
from monai_mil_ext.transforms import (
    EncodeInstancesd,
    KeepTransformHistoryd,
    SliceBag,
    SliceBagd,
    SliceScoresToVolumed,
    SliceSelection,
    UnpackBagOutputd,
)
from tests.transforms.geometry import ORDERS, PLANES, SELECTIONS, affines, reordered, scan

RAS = (("L", "R"), ("P", "A"), ("I", "S"))


def body(affine, shape=(13, 12, 11)):
    """Return a scan with air at the border and voxels that are all different inside."""
    volume = torch.zeros(1, *shape)
    inside = (slice(2, -2),) * 3
    volume[0][inside] = torch.arange(1.0, 1 + volume[0][inside].numel()).view_as(volume[0][inside])
    return MetaTensor(volume, affine=torch.as_tensor(affine))


def pipeline(lazy=False, **options):
    """Return transforms that MONAI users place before SliceBagd."""
    before = [
        Orientationd("image", "RAS", labels=RAS),
        Spacingd("image", (1.1, 0.9, 1.7)),
        CropForegroundd("image", "image", margin=1, allow_smaller=True),
    ]
    return Compose([*before, SliceBagd("image", **options)], lazy=lazy)


def coordinates(volume, affine):
    """Return the coordinates (X, Y, Z, 3) of the voxels of a volume in the voxel array of another affine."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape[1:]), indexing="ij"), -1)
    to_other = np.linalg.inv(np.asarray(affine)) @ np.asarray(volume.affine)
    return index @ to_other[:3, :3].T + to_other[:3, 3]


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES), selection=SELECTIONS)
def test_slice_bag_inverse_equals_slice_scores_to_volume(affine, order, plane, selection):
    image = reordered(scan((5, 4, 3), affine), *order)
    for filling in (0.5, "nearest", "linear"):
        transform = Compose([SliceBagd("image", plane, selection=selection, fill=filling)])
        item = transform({"image": image})
        item["scores"] = MetaTensor(torch.rand(len(item["image"]), 2))
        expected = SliceScoresToVolumed("scores", plane=plane, fill=filling)(item)["scores"]
        got = Invertd("scores", transform, orig_keys="image")(item)["scores"]
        assert torch.equal(got.as_tensor(), expected.as_tensor())
        assert torch.equal(got.affine, image.affine)
        assert got.applied_operations == []
    assert image.applied_operations == []


@given(
    affine=affines(),
    order=st.sampled_from(ORDERS),
    plane=st.sampled_from(PLANES),
    stride=st.integers(1, 3),
    start=st.sampled_from([None, 2.5]),
)
def test_slice_bagd_inverse_through_monai_transforms(affine, order, plane, stride, start):
    """Reference: for each voxel of the original, the nearest voxel of the bag's grid by the affines."""
    image = reordered(body(affine), *order)
    selection = SliceSelection(start_mm=start, stride=stride, num_neighbors=1)
    before = pipeline(plane=plane, selection=selection)
    item = before({"image": image})
    index = item["slice_index"]
    scores = 1 + torch.rand(len(index))
    item["attention"] = MetaTensor(scores)
    out = Invertd("attention", before, orig_keys="image")(item)["attention"]
    assert out.shape == image.shape
    assert_close(out.affine, image.affine, atol=1e-9, rtol=0)
    voxels = coordinates(image, item["affine"])
    shape = item["spatial_shape"].numpy()
    clear = (abs(voxels % 1 - 0.5) > 0.02).all(-1)  # not half way between two voxels
    grid = SliceScoresToVolumed("attention", plane=plane)(item)["attention"][0].numpy()
    inside = clear & ((voxels >= 0) & (voxels <= shape - 1)).all(-1)
    nearest = np.rint(voxels[inside]).astype(int)
    np.testing.assert_array_equal(out[0].numpy()[inside], grid[tuple(nearest.T)])
    assert inside.sum() > 200
    if stride == 1 and start is None:
        assert (out[0].numpy()[inside] >= 1).all()
        assert (out[image > 0] >= 1).all()  # all of the body lies in a slice with a score


def test_slice_bagd_inverse_is_zero_outside_of_the_crop():
    image = body(np.diag([0.8, 1.2, 2.0, 1.0]), (24, 20, 18))
    image[:, :9], image[:, :, -6:] = 0, 0
    before = pipeline()
    item = before({"image": image})
    item["attention"] = MetaTensor(torch.ones(len(item["image"])))
    out = Invertd("attention", before, orig_keys="image")(item)["attention"]
    assert out[:, :6].abs().max() == 0
    assert out[:, :, -3:].abs().max() == 0
    assert (out[image > 0] == 1).all()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_slice_bagd_inverse_after_encoder_batch_and_engine(num_workers):
    """Encode scans of different sizes in a batch, as the bundles do, and invert the attention of each scan."""
    spacing = torch.diag(torch.tensor([1.0, 1, 2, 1], dtype=torch.float64))
    scans = [body(spacing, shape) / 1000 for shape in ((12, 12, 9), (14, 12, 16))]
    net = ABMIL(36, 2, hidden_size=4).eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0, 0.1)
    slicing = pipeline(spatial_size=6, selection=SliceSelection(stride=2), fill="nearest")
    transform = Compose([slicing, KeepTransformHistoryd("image"), EncodeInstancesd("image", nn.Flatten())])
    items = Dataset([{"image": s, "label": i} for i, s in enumerate(scans)], transform)
    loader = DataLoader(
        items,
        batch_size=2,
        num_workers=num_workers,
        multiprocessing_context="fork" if num_workers else None,
        collate_fn=_collate,
    )
    back = Compose([UnpackBagOutputd("pred"), Invertd("attention", transform=slicing, orig_keys="image")])
    evaluator = SupervisedEvaluator(
        "cpu",
        loader,
        BagOutputWrapper(net),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        postprocessing=back,
    )
    evaluator.run()
    for item, image, row in zip(items, scans, evaluator.state.output, strict=True):
        volume = row["attention"]
        assert volume.shape == image.shape
        assert_close(volume.affine, image.affine)
        assert (volume[image > 0] > 0).all()
        attention = net.forward_bag(item["image"].unsqueeze(0)).attention.detach().flatten()
        assert len(attention.unique()) >= len(attention) - 1  # the first and the last slice are both empty
        alone = {**slicing({"image": image}), "attention": MetaTensor(attention)}
        expected = Invertd("attention", transform=slicing, orig_keys="image")(alone)["attention"]
        assert_close(volume.as_tensor(), expected.as_tensor())


def _collate(items):
    kept = ("image", "label", "image_transforms")
    return BagCollate("image")([{key: item[key] for key in kept} for item in items])


def test_slice_bag_resamples_a_lazy_scan_once(monkeypatch):
    affine = np.array([[0.8, -0.1, 0, 5], [0.1, 1.2, 0.1, -7], [0, 0.1, -2.5, 30], [0, 0, 0, 1]])
    image, counted, resample = body(affine), [], functional.resample
    monkeypatch.setattr(functional, "resample", lambda *a, **k: counted.append(1) or resample(*a, **k))
    before = [Orientationd("image", "LPS", labels=RAS), Spacingd("image", (1.1, 0.9, 1.7))]
    scan_of_all = Compose(before, lazy=True)({"image": image})["image"]
    expected = SliceBag(spatial_size=5)(scan_of_all)
    assert len(counted) == 1
    counted.clear()
    got = Compose([*before, SliceBagd("image", spatial_size=5)], lazy=True)({"image": image})
    assert len(counted) == 1
    assert torch.equal(got["image"].as_tensor(), expected.bag.as_tensor())
    assert torch.equal(got["position"], expected.position)
    assert torch.equal(got["affine"], scan_of_all.affine)
    counted.clear()
    pending = before[1](before[0]({"image": image}, lazy=True), lazy=True)["image"]
    assert len(pending.pending_operations) == 2
    alone = SliceBag(spatial_size=5)(pending)
    assert len(counted) == 1
    assert torch.equal(alone.bag.as_tensor(), expected.bag.as_tensor())
    assert len(pending.pending_operations) == 2  # the input stays as it is
    assert [step["class"] for step in alone.bag.applied_operations] == ["Orientation", "SpatialResample", "SliceBag"]


def test_slice_bag_inverse_in_another_process():
    image = scan((5, 4, 3), np.diag([1.0, 1, 2, 1]))
    transform = SliceBagd("image", selection=SliceSelection(stride=2))
    before = fingerprint(transform)
    bag = pickle.loads(pickle.dumps(transform))({"image": image})["image"]  # noqa: S301
    bag = pickle.loads(pickle.dumps(bag))  # noqa: S301
    transform({"image": image})
    scores = MetaTensor(torch.tensor([1.0, 2.0]), applied_operations=bag.applied_operations)
    assert transform.inverse({"image": scores})["image"][0, 0, 0].tolist() == [1, 0, 2]
    assert len(scores.applied_operations) == 1  # the input stays as it is
    assert fingerprint(transform) == before


def test_slice_bag_inverse_drops_padding_and_names_invalid_scores():
    bag = SliceBag(selection=SliceSelection(stride=2))(scan((5, 4, 3), np.eye(4))).bag

    def invert(scores):
        return SliceBag().inverse(MetaTensor(torch.tensor(scores), applied_operations=bag.applied_operations))

    assert invert([1.0, 2.0, 0.0, 0.0])[0, 0, 0].tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="`scores` must be of 2 slices, got 3 that are no padding"):
        invert([1.0, 2.0, 0.5])
    with pytest.raises(ValueError, match=r"`scores` must have shape .* got \(1, 1\) for \(2,\)"):
        invert([1.0])
    for plain in (torch.ones(2), MetaTensor(torch.ones(2))):
        with pytest.raises(
            ValueError, match="`scores` must carry the history of a bag of slices, got none of SliceBag"
        ):
            SliceBag().inverse(plain)
    untraced = SliceBag()
    with untraced.trace_transform(False):
        assert untraced(scan((5, 4, 3), np.eye(4))).bag.applied_operations == []
