"""ShiftedMeanDataset against the published datasets."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate, ShiftedMeanDataset

# fmt: off
GOLDEN = {  # benchmarks.md, section 5: instances, first lengths, first u, first y, positives, first values
    1003: (39738, [35, 23, 35, 40, 35, 24],
           [8, 6, 9, 9, 11, 2], [1, 0, 1, 0, 0, 1], 507, [-0.445890, 0.879778, 0.113672]),
    2003: (40020, [29, 52, 54, 42, 40, 48],
           [12, 0, 7, 23, 24, 26], [1, 1, 0, 1, 1, 0], 506, [-0.591378, -0.521785, 1.828456]),
    3003: (39702, [45, 43, 48, 56, 40, 40],
           [5, 29, 14, 8, 6, 26], [0, 1, 1, 0, 0, 1], 514, [0.630880, -1.935441, -0.332032]),
}
# fmt: on
SMALL = {"num_bags": 50, "seed": 3, "in_features": 4}


@pytest.mark.parametrize("seed", GOLDEN)
def test_shifted_mean_bags_equal_the_published_test_set(seed):
    total, lengths, starts, labels, positives, values = GOLDEN[seed]
    bags = ShiftedMeanDataset(1000, seed)
    assert bags.instances.dtype == torch.float32
    assert bags.instances.shape == (total, 768)
    assert bags.lengths[:6].tolist() == lengths
    assert bags.starts[:6].tolist() == starts
    assert bags.labels[:6].tolist() == labels
    assert int(bags.labels.sum()) == positives
    assert bags[0]["image"][0, :3].tolist() == pytest.approx(values, abs=5e-7)


def test_shifted_mean_bags_shift_one_run_of_positive_bags():
    plain, bags = (ShiftedMeanDataset(**SMALL, shift=shift, num_shifted=2, run_length=5) for shift in (0.0, 0.5))
    for before, after, start in zip(plain, bags, bags.starts.tolist(), strict=True):
        run = torch.zeros(len(after["image"]))
        run[start : start + 5] = float(after["label"])
        assert_close(after["instance_label"].float(), run)
        assert_close(
            after["image"][:, :2] - before["image"][:, :2], 0.5 * run[:, None].expand(-1, 2), rtol=0, atol=1e-6
        )
        assert torch.equal(after["image"][:, 2:], before["image"][:, 2:])
        assert torch.equal(before["label"], after["label"])


def test_shifted_mean_bags_noise():
    plain, other = ShiftedMeanDataset(**SMALL, shift=0.0), ShiftedMeanDataset(**SMALL, shift=0.0, noise=(3.0, 2.0))
    assert_close(other.instances, 3 + 2 * plain.instances)


def test_shifted_mean_bags_feature_seed():
    plain, mixed, again = (ShiftedMeanDataset(**SMALL, feature_seed=seed) for seed in (None, 0, 0))
    other = ShiftedMeanDataset(50, seed=4, in_features=4, feature_seed=0)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    assert order.tolist() != [0, 1, 2, 3]
    assert torch.equal(mixed.instances, plain.instances[:, order])
    assert torch.equal(mixed.instances, again.instances)
    assert torch.equal(other.instances, ShiftedMeanDataset(50, seed=4, in_features=4).instances[:, order])


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_shifted_mean_bags_prob(prob):
    assert ShiftedMeanDataset(**SMALL, prob=prob).labels.float().mean() == prob


def test_shifted_mean_bags_by_index_and_in_a_batch():
    bags = ShiftedMeanDataset(**SMALL)
    assert len(bags) == len(list(bags)) == 50
    assert bags[-1]["case_id"] == bags[49]["case_id"] == bags[49]["patient"] == "3-49"
    assert torch.equal(torch.cat([bag["image"] for bag in bags]), bags.instances)
    with pytest.raises(IndexError, match="out of range"):
        bags[50]
    batch = BagCollate(["image", "instance_label"])([bags[0], bags[1]])
    assert batch["mask"].sum(1).tolist() == bags.lengths[:2].tolist()
    assert batch["label"].tolist() == bags.labels[:2].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run_length": 24}, r"`lengths` must be a range from at least 24, got \(20, 60\)"),
        ({"lengths": (40, 30)}, r"`lengths` must be a range from at least 12, got \(40, 30\)"),
        ({"num_shifted": 5}, "`num_shifted` must be at most 4, got 5"),
        ({"noise": (0.0, 0.0)}, "`noise` must have a positive standard deviation, got 0.0"),
        ({"prob": 1.5}, r"`prob` must be in \[0, 1\], got 1.5"),
        ({"run_length": 0}, "`run_length` must be a positive integer, got 0"),
    ],
)
def test_shifted_mean_bags_refuse_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        ShiftedMeanDataset(**SMALL, **options)
