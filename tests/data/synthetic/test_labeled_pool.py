"""Tests of LabeledPoolBagDataset: bags drawn from a pool of labeled instances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import BagCollate, LabeledPoolBagDataset

POOL = torch.arange(40).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).to(torch.uint8)
CLASSES = torch.arange(40) % 10


@given(seed=st.integers(0, 1000), positive=st.integers(0, 9))
def test_labeled_pool_bag_dataset_labels_follow_from_the_instances(seed, positive):
    for bag in LabeledPoolBagDataset(POOL, CLASSES, 20, seed, positive, size=(4, 2)):
        classes = bag["image"][:, 0, 0, 0] % 10
        assert bag["instance_label"].tolist() == (classes == positive).long().tolist()
        assert bag["label"] == bag["instance_label"].any()
        assert bag["image"].dtype == torch.uint8


def test_labeled_pool_bag_dataset_sizes_and_fractions_are_those_of_the_paper():
    bags = LabeledPoolBagDataset(POOL, CLASSES, 4000, seed=0)
    assert bags.lengths.double().mean().item() == pytest.approx(10, abs=0.1)
    assert bags.lengths.double().std().item() == pytest.approx((4 + 1 / 12) ** 0.5, abs=0.1)  # rounding adds 1 / 12
    share = sum(int(bag["label"]) for bag in bags) / 4000
    assert share == pytest.approx(1 - 0.9**10, abs=0.03)
    assert torch.bincount(bags.rows).float().std() < 4 * (len(bags.rows) / 40) ** 0.5  # every instance is as likely


def test_labeled_pool_bag_dataset_depend_on_the_seed():
    bags, again, other = (LabeledPoolBagDataset(POOL, CLASSES, 30, seed, size=(3, 5)) for seed in (1, 1, 2))
    assert torch.equal(bags.rows, again.rows)
    assert not torch.equal(bags.rows[:50], other.rows[:50])
    assert bags.lengths.min() == 1  # never an empty bag
    rows = torch.cat([bag["image"][:, 0, 0, 0].long() for bag in bags])
    assert rows.tolist() == bags.rows.tolist()
    assert bags[-1]["case_id"] == "1-29"
    assert len({bag["case_id"] for bag in bags}) == len(bags) == 30
    batch = BagCollate(["image", "instance_label"])([bags[0], bags[1]])
    assert batch["mask"].sum(1).tolist() == bags.lengths[:2].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_bags": 0}, "`num_bags` must be a positive integer, got 0"),
        (
            {"classes": CLASSES[:3]},
            r"`classes` must have a class for each of the 40 instances, at least one, got shape \(3,\)",
        ),
        ({"positive": 10}, "`positive` must be a class of the pool, got 10, which no instance has"),
        ({"size": (0, 1)}, r"`size` must be a positive mean and a deviation that is not negative, got \(0, 1\)"),
        ({"size": (5, -1)}, r"`size` must be a positive mean and a deviation that is not negative, got \(5, -1\)"),
    ],
)
def test_labeled_pool_bag_dataset_refuse_invalid_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        LabeledPoolBagDataset(**{"instances": POOL, "classes": CLASSES, "num_bags": 2, "seed": 0, **change})
