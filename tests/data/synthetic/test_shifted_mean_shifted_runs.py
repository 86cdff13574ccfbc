"""Bayes estimators of a run, against sums over all hypotheses and the published ceilings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from monai_mil_ext.data import ShiftedMeanDataset, run_posterior, shift_evidence
from monai_mil_ext.metrics import center_scores, localization


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


PUBLISHED = {  # benchmarks.md, section 6: scan AUROC, slice AUROC, slice AP, center at S/2 and at (S + 1)/2
    (1003, 0.5): (0.80088, 0.88212, 0.8191, 0.7032, 0.7054),
    (2003, 0.5): (0.81506, 0.87990, 0.8254, 0.6685, 0.6690),
    (3003, 0.5): (0.81303, 0.88979, 0.8315, 0.6920, 0.6939),
    (1003, 1.0): (0.972, 0.979, 0.967, 0.7032, 0.7054),
    (2003, 1.0): (0.978, 0.976, 0.962, 0.6685, 0.6690),
    (3003, 1.0): (0.978, 0.976, 0.959, 0.6920, 0.6939),
}


@pytest.mark.slow
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
