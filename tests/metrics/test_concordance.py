"""Tests of the concordance index: by hand, by all pairs, invariances, and the metric over batches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.metrics import ConcordanceIndexMetric, concordance_index

patients = st.tuples(st.integers(-3, 3), st.integers(0, 4), st.integers(0, 1))  # few values, so many ties
cohorts = st.lists(patients, min_size=0, max_size=12)


def columns(cohort):
    risk, time, event = torch.tensor(cohort).reshape(-1, 3).unbind(1)
    return risk.double(), time.double(), event


def every_pair(cohort):
    """Compute the index pair by pair, from the definition."""
    points, pairs = 0.0, 0
    for risk, time, event in cohort:
        for other_risk, other_time, other_event in cohort:
            if event and (time < other_time or (time == other_time and not other_event)):
                pairs += 1
                points += 1.0 if risk > other_risk else 0.5 if risk == other_risk else 0.0
    return points / pairs if pairs else math.nan


def test_concordance_index_by_hand():
    """Comparable: (a, b), (a, c), (a, d), (b, d); c was censored, so it is never the earlier one."""
    time, event = torch.tensor([1.0, 3.0, 2.0, 4.0]), torch.tensor([1, 1, 0, 1])
    assert concordance_index(torch.tensor([5.0, 6.0, 5.0, 1.0]), time, event) == (0 + 0.5 + 1 + 1) / 4


def test_concordance_index_of_equal_times():
    risk, time = torch.tensor([2.0, 1.0]), torch.ones(2)
    assert math.isnan(concordance_index(risk, time, torch.tensor([1, 1])))
    assert math.isnan(concordance_index(risk, time, torch.tensor([0, 0])))
    assert concordance_index(risk, time, torch.tensor([1, 0])) == 1.0  # the other is known to survive
    assert concordance_index(risk, time, torch.tensor([0, 1])) == 0.0


@given(cohort=cohorts)
def test_concordance_index_equals_brute_force(cohort):
    assert_close(concordance_index(*columns(cohort)), every_pair(cohort), rtol=0, atol=1e-12, equal_nan=True)


def test_concordance_index_of_several_chunks():
    risk, time, event = torch.randint(0, 50, (2500,)), torch.randint(0, 200, (2500,)), torch.randint(0, 8, (2500,)) > 0
    first = (time.unsqueeze(1) < time) | ((time.unsqueeze(1) == time) & ~event)
    first &= event.unsqueeze(1)
    sign = (risk.unsqueeze(1) - risk).sign()[first].double()
    assert event.sum() > 2048
    assert_close(concordance_index(risk, time, event), ((sign + 1) / 2).mean().item(), rtol=0, atol=1e-12)


@given(cohort=cohorts, seed=st.integers(0, 2**16))
def test_concordance_index_is_invariant_to_order_and_monotone_maps(cohort, seed):
    risk, time, event = columns(cohort)
    value = concordance_index(risk, time, event)
    order = torch.randperm(len(cohort), generator=torch.Generator().manual_seed(seed))
    same = {"rtol": 0, "atol": 0, "equal_nan": True}
    assert_close(concordance_index(risk[order], time[order], event[order]), value, **same)
    assert_close(concordance_index((risk / 2).exp() - 9, time.square() + 3, event.bool()), value, **same)


@given(cohort=cohorts)
def test_concordance_index_of_the_negated_risk_is_the_complement(cohort):
    """This includes ties, which count one half."""
    risk, time, event = columns(cohort)
    expected = 1 - concordance_index(risk, time, event)
    assert_close(concordance_index(-risk, time, event), expected, rtol=0, atol=1e-12, equal_nan=True)


@given(cohort=cohorts)
def test_concordance_index_of_perfect_and_constant_risk(cohort):
    _, time, event = columns(cohort)
    perfect = concordance_index(-time - (1 - event) * 0.5, time, event)
    assert math.isnan(perfect) or perfect == 1.0
    assert math.isnan(perfect) or concordance_index(torch.zeros(len(cohort)), time, event) == 0.5


def test_concordance_index_of_infinite_risks():
    inf = float("inf")
    assert concordance_index(torch.tensor([inf, 0.0, -inf]), torch.arange(3.0), torch.ones(3)) == 1.0


@given(cohort=cohorts.filter(len), size=st.integers(1, 5))
def test_concordance_index_metric_counts_pairs_across_batches(cohort, size):
    risk, time, event = columns(cohort)
    metric, as_lists = ConcordanceIndexMetric(), ConcordanceIndexMetric()
    y = torch.stack([time, event.double()], dim=1)
    for r, label in zip(risk.split(size), y.split(size), strict=True):
        metric(r, label)
        as_lists([x.reshape(1) for x in r], list(label))
    for m in (metric, as_lists):
        assert_close(m.aggregate().item(), every_pair(cohort), rtol=0, atol=1e-12, equal_nan=True)
    metric.reset()
    with pytest.raises(ValueError, match="`y_pred` must be given before the index is computed, got none"):
        metric.aggregate()


@pytest.mark.parametrize(
    ("risk", "time", "event", "message"),
    [
        ([[1.0]], [1.0], [1], r"`risk` must have shape \(B,\) = \(1,\), got \(1, 1\)"),
        ([1.0], [1.0, 2.0], [1], r"`time` must have shape \(B,\) = \(1,\), got \(2,\)"),
        ([1.0], [1.0], [[1]], r"`event` must have shape \(B,\) = \(1,\), got \(1, 1\)"),
        ([torch.nan, 1.0], [1.0, 2.0], [1, 1], "`risk` must not be NaN, got 1 NaN of 2"),
        ([1.0], [torch.nan], [1], "`time` must not be NaN, got 1 NaN of 1"),
        ([1.0], [1.0], [2], "`event` must be 0 or 1, got 2"),
    ],
)
def test_concordance_index_names_invalid_input(risk, time, event, message):
    with pytest.raises(ValueError, match=message):
        concordance_index(torch.tensor(risk), torch.tensor(time), torch.tensor(event))


def test_concordance_index_metric_names_invalid_input():
    with pytest.raises(ValueError, match=r"`y_pred` must be risks \(B,\) or \(B, 1\), got \(2, 3\)"):
        ConcordanceIndexMetric()(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"`y` must be time and event \(B, 2\) = \(2, 2\), got \(2,\)"):
        ConcordanceIndexMetric()(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"`y` must be time and event .*, got None"):
        ConcordanceIndexMetric()(torch.zeros(2))
