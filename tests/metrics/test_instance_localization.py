"""Instance localization by scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.metrics import InstanceLocalizationMetric, center_scores, localization

LABELS = torch.tensor([0, 1, 1, 0, 0])


def test_localization_by_hand():
    """By hand: 5 of 6 pairs in order; precision 1 at the first hit, 2/3 at the second."""
    values = localization(torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]), LABELS)
    assert values["auroc"] == pytest.approx(5 / 6)
    assert values["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["mass"] == pytest.approx(0.6)


def test_localization_auroc_counts_ties_one_half():
    assert localization(torch.ones(5), LABELS) == pytest.approx({"auroc": 0.5, "average_precision": 0.4, "mass": 0.4})


@given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), st.integers(1, 5))
def test_localization_auroc_depends_on_the_order_only(scores, power):
    scores = torch.tensor(scores, dtype=torch.float64)
    a, b = (localization(s, LABELS)["auroc"] for s in (scores, torch.exp(scores) * power))
    if len(scores.unique()) == len(torch.exp(scores).unique()):
        assert a == pytest.approx(b)


@pytest.mark.parametrize("labels", [torch.zeros(5), torch.ones(5)], ids=["none", "all"])
def test_localization_of_one_label_is_nan(labels):
    assert all(math.isnan(v) for v in localization(torch.rand(5), labels).values())


def test_localization_mass_of_negative_scores_is_nan():
    values = localization(torch.tensor([-1.0, 2.0, 1.0, 0.0, 0.0]), LABELS)
    assert math.isnan(values["mass"])
    assert values["auroc"] == 1.0


def test_center_scores_tie_only_in_mirrored_pairs():
    assert center_scores(5).tolist() == [-2, -1, 0, -1, -2]
    assert len(center_scores(301).unique()) == 151


def test_instance_localization_metric_averages_over_positive_bags():
    metric = InstanceLocalizationMetric("auroc")
    perfect, reversed_ = LABELS.float(), 1 - LABELS.float()
    metric(y_pred=[perfect, reversed_, torch.rand(3)], y=[LABELS, LABELS, torch.zeros(3)])
    assert_close(metric.aggregate(), torch.tensor(0.5, dtype=torch.float64))


def test_instance_localization_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`labels` must have the shape \(N,\) of `scores` \(5,\), got \(4,\)"):
        localization(torch.rand(5), torch.ones(4))
    with pytest.raises(ValueError, match=r"`metric` must be one of 'auroc', 'average_precision', .*, got 'auc'"):
        InstanceLocalizationMetric("auc")
    with pytest.raises(ValueError, match=r"`metric` must be one of .*'precision_at_0.1', .*, got 'precision_at_2'"):
        InstanceLocalizationMetric("precision_at_2")
    with pytest.raises(ValueError, match=r"`y` must be the instance labels \(B, N\), got None"):
        InstanceLocalizationMetric()(torch.rand(1, 5))
    with pytest.raises(ValueError, match="`y_pred` must be given before the value is computed, got none"):
        InstanceLocalizationMetric().aggregate()


def test_instance_localization_metric_has_all_metrics():
    """Two heads whose mean is (0.5, 0.3, 0.2): the negative comes first, then both positives."""
    heads, labels = torch.tensor([[0.6, 0.4], [0.3, 0.3], [0.1, 0.3]]), torch.tensor([0, 1, 1])
    expected = {"auroc": 0, "average_precision": 7 / 12, "mass": 0.5, "pointing_game": 0, "precision_at_0.5": 2 / 3}
    for name, value in expected.items():
        metric = InstanceLocalizationMetric(name)
        metric([heads], [labels])
        assert metric.aggregate().item() == pytest.approx(value)


def test_instance_localization_metric_skill_is_that_of_the_means():
    """Bag by bag it would be (1 + 0) / 2; of the means of AUROC (1, 0.5) and of the center (0.75, 0.5) it is 1/3."""
    metric = InstanceLocalizationMetric("skill")
    metric([torch.tensor([0.1, 0.9, 0.2])], [torch.tensor([0, 1, 1])])
    metric([torch.ones(4)], [torch.tensor([1, 0, 0, 1]).roll(1)])
    assert metric.aggregate().item() == pytest.approx((0.75 - 0.625) / (1 - 0.625))
    assert InstanceLocalizationMetric("auroc").per_instance == (True, True)
