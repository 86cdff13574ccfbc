"""Tests of ShiftedMeanDataset and of the Bayes estimators of its runs, against the published numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate, ShiftedMeanDataset, run_posterior, shift_evidence
from monai_mil_ext.metrics import center_scores, localization

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
def test_shifted_mean_dataset_equal_the_published_test_set(seed):
    total, lengths, starts, labels, positives, values = GOLDEN[seed]
    bags = ShiftedMeanDataset(1000, seed)
    assert bags.instances.dtype == torch.float32
    assert bags.instances.shape == (total, 768)
    assert bags.lengths[:6].tolist() == lengths
    assert bags.starts[:6].tolist() == starts
    assert bags.labels[:6].tolist() == labels
    assert int(bags.labels.sum()) == positives
    assert bags[0]["image"][0, :3].tolist() == pytest.approx(values, abs=5e-7)


def test_shifted_mean_dataset_shift_one_run_of_positive_bags():
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


def test_shifted_mean_dataset_noise():
    plain, other = ShiftedMeanDataset(**SMALL, shift=0.0), ShiftedMeanDataset(**SMALL, shift=0.0, noise=(3.0, 2.0))
    assert_close(other.instances, 3 + 2 * plain.instances)


def test_shifted_mean_dataset_feature_seed():
    plain, mixed, again = (ShiftedMeanDataset(**SMALL, feature_seed=seed) for seed in (None, 0, 0))
    other = ShiftedMeanDataset(50, seed=4, in_features=4, feature_seed=0)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    assert order.tolist() != [0, 1, 2, 3]
    assert torch.equal(mixed.instances, plain.instances[:, order])
    assert torch.equal(mixed.instances, again.instances)
    assert torch.equal(other.instances, ShiftedMeanDataset(50, seed=4, in_features=4).instances[:, order])


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_shifted_mean_dataset_prob(prob):
    assert ShiftedMeanDataset(**SMALL, prob=prob).labels.float().mean() == prob


def test_shifted_mean_dataset_by_index_and_in_a_batch():
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
def test_shifted_mean_dataset_refuse_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        ShiftedMeanDataset(**SMALL, **options)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.integers(1, 8), st.floats(0.1, 0.9), st.floats(-1.5, 1.5))
def test_run_posterior_is_the_ratio_of_densities(values, run, prob, shift):
    run, x = min(run, len(values)), np.array(values)
    posterior = run_posterior(shift_evidence(torch.tensor(x)[:, None], shift, mean=0.3, sd=1.7), run, prob)
    places = [np.isin(np.arange(len(x)), range(u, u + run)) for u in range(len(x) - run + 1)]
    density = [math.exp(-(((x - 0.3 - shift * place) / 1.7) ** 2).sum() / 2) for place in [*places, np.zeros(len(x))]]
    positive = prob * np.mean(density[:-1])
    assert_close(posterior.log_odds.exp().item(), positive / ((1 - prob) * density[-1]))
    expected = np.average(places, axis=0, weights=density[:-1])
    assert_close(posterior.instances, torch.tensor(expected))


def test_shift_evidence_is_a_sum_over_features():
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = sum(shift_evidence(x[:, d : d + 1], 0.5) for d in range(3))
    assert_close(shift_evidence(x, 0.5), each)


def test_run_posterior_of_a_long_bag_does_not_underflow():
    posterior = run_posterior(torch.full((5000,), -40.0), 1000)
    assert posterior.log_odds.item() == pytest.approx(-40_000)
    assert posterior.instances.isfinite().all()


@pytest.mark.parametrize(
    ("evidence", "options", "message"),
    [
        (torch.zeros(3), {"run_length": 4}, r"`evidence` must be \(N,\) with at least 4 values, got \(3,\)"),
        (torch.zeros(3, 1), {"run_length": 2}, r"`evidence` must be .* got \(3, 1\)"),
        (torch.zeros(3), {"run_length": 0}, "`run_length` must be a positive integer, got 0"),
        (torch.zeros(3), {"run_length": 1, "prob": 1.0}, r"`prob` must be in \(0, 1\), got 1.0"),
    ],
)
def test_run_posterior_names_invalid_arguments(evidence, options, message):
    with pytest.raises(ValueError, match=message):
        run_posterior(evidence, **options)


PUBLISHED = {  # benchmarks.md, section 6: bag AUROC, slice AUROC, slice AP, center at S/2 and at (S + 1)/2
    (1003, 0.5): (0.80088, 0.88212, 0.8191, 0.7032, 0.7054),
    (2003, 0.5): (0.81506, 0.87990, 0.8254, 0.6685, 0.6690),
    (3003, 0.5): (0.81303, 0.88979, 0.8315, 0.6920, 0.6939),
    (1003, 1.0): (0.972, 0.979, 0.967, 0.7032, 0.7054),
    (2003, 1.0): (0.978, 0.976, 0.962, 0.6685, 0.6690),
    (3003, 1.0): (0.978, 0.976, 0.959, 0.6920, 0.6939),
}


@pytest.mark.slow(buys="the published ceilings of the semi-synthetic data")
@pytest.mark.parametrize(("setting", "expected"), PUBLISHED.items(), ids=str)
def test_run_posterior_reproduces_published_ceilings(setting, expected):
    seed, shift = setting
    bags = list(ShiftedMeanDataset(1000, seed, shift=shift))
    posterior = [run_posterior(shift_evidence(bag["image"][:, :1], shift), 12) for bag in bags]
    odds, labels = [f.log_odds.item() for f in posterior], [int(bag["label"]) for bag in bags]
    positive = [(bag["instance_label"], f.instances) for bag, f in zip(bags, posterior, strict=True) if bag["label"]]
    metrics = [localization(scores, label) for label, scores in positive]
    half = [localization(-(torch.arange(1, len(y) + 1) - len(y) / 2).abs(), y)["auroc"] for y, _ in positive]
    center = [localization(center_scores(len(y)), y)["auroc"] for y, _ in positive]
    values = [roc_auc_score(labels, odds)]
    values += [np.nanmean([v[name] for v in metrics]) for name in ("auroc", "average_precision")]
    values += [np.nanmean(half), np.nanmean(center)]
    assert values == pytest.approx(expected, abs=1e-3)
