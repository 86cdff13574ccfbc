"""Tests of the coverage of instance sets in new bags."""

import numpy as np
import pytest
import torch
from scipy import stats

from monai_mil_ext.metrics import ConformalInstances, set_coverage

from .bags import random_bags


def fitted(count=60, seed=0, **options):
    return ConformalInstances(**{"alpha": 0.1, "max_share": 1, **options}).fit(*random_bags(count, seed))


def test_coverage_counts_the_right_sets():
    scores, labels = random_bags(50, seed=1)
    sets = fitted()
    found = set_coverage(sets, scores, labels)
    right = [bool(y[sets.select(s).indices].any()) for s, y in zip(scores, labels, strict=True)]
    sizes = [len(sets.select(s).indices) for s in scores]
    assert (found["num_bags"], found["covered"], found["coverage"]) == (50, sum(right), np.mean(right))
    assert found["mean_size"] == pytest.approx(np.mean(sizes))
    assert found["mean_share"] == pytest.approx(np.mean([k / len(s) for k, s in zip(sizes, scores, strict=True)]))
    assert found["coverage_answered"] == found["coverage"]
    assert found["interval_95"][0] < found["coverage"] <= found["interval_95"][1]
    assert found["p_value"] == pytest.approx(stats.binom.cdf(sum(right), 50, 0.9))
    assert found["shift_p_value"] == pytest.approx(stats.betabinom.cdf(sum(right), 50, 55, 6))


def test_other_anatomy_is_reported():
    """At a site where lesions don't stand out, the sets are too small."""
    found = set_coverage(ConformalInstances(0.1).fit(*random_bags(60, 0, 4)), *random_bags(60, 1, 0))
    assert not found["holds"]
    assert found["shifted"]


def test_bags_of_the_same_kind_are_rarely_called_shifted():
    """The test of a shift has its level, although calibrations are small and differ by chance."""
    scores, labels = random_bags(120 * 40, lift=2, sizes=(60, 61))
    found = []
    for start in range(0, len(scores), 40):
        s, y = scores[start : start + 40], labels[start : start + 40]
        found.append(set_coverage(ConformalInstances(by="mass").fit(s[:20], y[:20]), s[20:], y[20:]))
    assert np.mean([f["shifted"] for f in found]) <= 0.05 + 3 * (0.05 * 0.95 / 120) ** 0.5


def test_an_unlucky_calibration_is_no_shift():
    """Of 20 bags, 15 right sets are too few for 0.9, but not for a calibration with 9 bags: see Beta(9, 1)."""
    levels = torch.eye(9).long()
    bags = [torch.arange(9, 0, -1.0)] * 20
    sets = ConformalInstances(0.1, max_share=1).fit(bags[:9], [levels[0]] * 9)
    found = set_coverage(sets, bags, [levels[0]] * 15 + [levels[1]] * 5)
    assert (found["coverage"], found["holds"], found["shifted"]) == (0.75, False, False)
    assert found["shift_p_value"] == pytest.approx(stats.betabinom.cdf(15, 20, 9, 1))


def test_abstaining_does_not_hide_wrong_sets():
    scores, labels = random_bags(60, 1, 0)
    free = set_coverage(ConformalInstances(0.1).fit(*random_bags(60, 0, 4)), scores, labels)
    strict = set_coverage(ConformalInstances(0.1, max_share=0.01).fit(*random_bags(60, 0, 4)), scores, labels)
    assert strict["abstained"] == 1
    assert strict["coverage_answered"] is None
    assert (strict["coverage"], strict["holds"]) == (free["coverage"], False)


def test_target_all_needs_every_positive_instance():
    scores, labels = [torch.tensor([0.5, 0.3, 0.2])] * 9, [torch.tensor([1, 1, 0])] * 9
    sets = ConformalInstances(0.1, "all", max_share=1).fit(scores, labels)
    found = set_coverage(sets, scores, [torch.tensor([1, 0, 1])] * 9)
    assert (found["coverage"], found["coverage_answered"], found["mean_size"]) == (0, 0, 2)


def test_a_patient_counts_once_and_bags_without_lesions_never():
    scores, labels = random_bags(10)
    found = set_coverage(fitted(), scores, labels, [i // 5 for i in range(10)])
    assert found["num_bags"] == 2
    assert set_coverage(fitted(), scores, [torch.zeros_like(y) for y in labels]) == {"num_bags": 0}


def test_a_calibration_that_is_too_small_covers_all():
    found = set_coverage(fitted(5), *random_bags(10))
    assert (found["coverage"], found["abstained"], found["shift_p_value"], found["holds"]) == (1, 1, 1, True)
