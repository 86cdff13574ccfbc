"""Tests of BagCollate."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor

from monai_mil_ext.data import BagCollate


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_bag_collate_mask_selects_the_instances(sizes):
    bags = [{"image": torch.randn(n, 3), "position": torch.randn(n), "label": torch.tensor(n)} for n in sizes]
    batch = BagCollate(["image", "position"])(bags)
    assert batch["mask"].dtype == torch.bool
    assert batch["mask"].sum(1).tolist() == sizes
    for i, bag in enumerate(bags):
        assert torch.equal(batch["image"][i][batch["mask"][i]], bag["image"])
        assert torch.equal(batch["position"][i][batch["mask"][i]], bag["position"])
        assert batch["mask"][i, : sizes[i]].all()
    assert not batch["image"][~batch["mask"]].any()
    assert batch["label"].tolist() == sizes


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.bool])
def test_bag_collate_keeps_dtypes(dtype):
    batch = BagCollate("image")([{"image": torch.ones(n, 2).to(dtype)} for n in (1, 3)])
    assert batch["image"].dtype == dtype
    assert batch["image"].sum() == 8


def test_bag_collate_collates_other_items_by_default_collate():
    bag = {"image": np.ones((2, 1)), "case_id": "a", "affine": MetaTensor(torch.eye(4)), "start": 3}
    batch = BagCollate("image")([bag, {**bag, "case_id": "b"}])
    assert batch["case_id"] == ["a", "b"]
    assert batch["start"].tolist() == [3, 3]
    assert batch["affine"].shape == (2, 4, 4)
    assert all(type(v) is torch.Tensor for k, v in batch.items() if k != "case_id")


@pytest.mark.parametrize("workers", [0, 2])
def test_bag_collate_in_a_monai_data_loader(workers):
    data = [{"image": MetaTensor(torch.full((n, 2), float(n))), "label": n % 2} for n in (1, 4, 2)]
    batches = list(DataLoader(Dataset(data), batch_size=2, num_workers=workers, collate_fn=BagCollate("image")))
    assert [tuple(b["image"].shape) for b in batches] == [(2, 4, 2), (1, 2, 2)]
    assert batches[0]["mask"].tolist() == [[True, False, False, False], [True] * 4]


ONE = {"image": torch.ones(2, 1), "position": torch.ones(2)}


@pytest.mark.parametrize(
    ("bag", "match"),
    [
        ({**ONE, "image": torch.ones(0, 1), "position": torch.ones(0)}, "must have an instance, got none in bag 1 of"),
        ({**ONE, "position": torch.ones(3)}, r"same number of instances, got \{'image': 2, 'position': 3\} in bag 1"),
        ({**ONE, "image": torch.ones(2, 4)}, r"`image` must have instances of one shape and dtype, got \(N, 1\) .*4"),
        ({**ONE, "image": torch.ones(2, 1).half()}, r"`image` must have .* got \(N, 1\) torch.float16 and"),
        ({**ONE, "label": 1}, r"same keys, got \['image', 'label', 'position'\] and \['image', 'position'\]"),
        ({**ONE, "label": None}, r"must not be None, got None for \['label'\] in bag 1 of the batch"),
        ({**ONE, "position": None}, r"must not be None, got None for \['position'\]"),
        (
            {**ONE, "mask": torch.ones(2)},
            r"`mask` must not be a key of a bag, since BagCollate adds it, got one in bag 1 of the batch",
        ),
    ],
)
def test_bag_collate_refuses_invalid_bags(bag, match):
    with pytest.raises(ValueError, match=match):
        BagCollate(["image", "position"])([ONE, bag])


def test_bag_collate_names_the_case():
    with pytest.raises(ValueError, match="must have an instance, got none in bag 'case_7'"):
        BagCollate("image")([{"image": torch.ones(0, 1), "case_id": "case_7"}])
    with pytest.raises(ValueError, match=r"must have \['image'\], got none of \['image'\] in bag 'case_7'"):
        BagCollate("image")([{"case_id": "case_7"}])


def test_bag_collate_skips_keys_that_the_bags_lack():
    collate = BagCollate(["image", "instance_label"], allow_missing_keys=True)
    assert set(collate([{"image": torch.ones(2, 1)}] * 2)) == {"image", "mask"}
    labeled = {"image": torch.ones(2, 1), "instance_label": torch.ones(2)}
    assert collate([labeled])["instance_label"].tolist() == [[1, 1]]
    with pytest.raises(ValueError, match=r"bags of a batch must have the same keys, got \['image'\] and"):
        collate([labeled, {"image": torch.ones(2, 1)}])
    with pytest.raises(ValueError, match=r"must have \['image', 'instance_label'\], got none of \['image'\]"):
        collate([{"instance_label": torch.ones(2)}])


def test_a_single_bag_is_not_copied():
    bag = torch.rand(3, 2)
    batch = BagCollate("image")([{"image": bag}])
    assert batch["image"].data_ptr() == bag.data_ptr()
    assert torch.equal(batch["image"], bag[None])
    assert batch["mask"].tolist() == [[True, True, True]]
