"""Tests of BagIterationMetric in one process; for two, see tests/handlers/test_bag_metric_handler_ddp.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.metrics import (
    AttentionMassMetric,
    BagClassificationMetric,
    BagIterationMetric,
    ConcordanceIndexMetric,
    InstanceLocalizationMetric,
)


class Value(BagIterationMetric):
    """Metric that is the mean of y_pred itself."""

    def _compute_tensor(self, y_pred, y=None, **kwargs):
        return y_pred.double()

    def aggregate(self):
        """Return the mean."""
        return self.mean()[0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_bag_iteration_metric_mean_is_bit_equal_in_any_order(values, random):
    metric, other = Value(), Value()
    metric(torch.tensor(values, dtype=torch.float64)[:, None])
    other(torch.tensor(random.sample(values, len(values)), dtype=torch.float64)[:, None])
    assert metric.aggregate() == other.aggregate()


def test_bag_iteration_metric_mean_excludes_nan():
    metric = Value()
    metric(torch.tensor([[1.0], [math.nan], [3.0]]))
    assert metric.aggregate() == 2
    metric.reset()
    metric(torch.tensor([[math.nan]]))
    assert metric.aggregate().isnan()


def gather(metric, *parts):
    """Return a metric with the bags of several processes, (values, case ids) each."""
    processes = [metric() for _ in parts]
    for process, (values, cases) in zip(processes, parts, strict=True):
        process(*values if isinstance(values, tuple) else (values,), case_id=cases)
    buffers = [[torch.stack(b) for b in process._buffers] for process in processes]
    together = metric()
    together._buffers = [[] for _ in buffers[0]]
    together._synced_tensors = [torch.cat(pair) for pair in zip(*buffers, strict=True)]
    together._synced = True
    return together


def test_bag_iteration_metric_counts_duplicates_of_other_processes_once():
    """Check that bag a, which the second process gets with slightly different values, counts once."""
    gathered = torch.tensor([[1.0], [2.0], [3.0], [1.0 + 1e-7]]).double()
    together = gather(Value, (gathered[:2], ["a", "b"]), (gathered[2:], ["c", "a"]))
    assert together.get_buffer().tolist() == [[1.0], [2.0], [3.0]]
    assert together.aggregate() == 2


def test_metrics_of_outputs_lose_no_bag_whose_case_id_another_process_has():
    p, q = torch.tensor([[0.4, 0.6]]), torch.tensor([[0.9, 0.1]])
    one, zero = torch.tensor([1]), torch.tensor([0])
    for part in ((q, one), (p, zero)):
        with pytest.raises(ValueError, match="`case_id` must be the name of one bag, got one for different bags"):
            gather(BagClassificationMetric, ((p, one), ["a"]), (part, ["a"])).get_buffer()
    repeated = gather(BagClassificationMetric, ((p, one), ["a"]), ((p + 1e-6, one), ["a"]))
    assert len(repeated.get_buffer()) == 1
    risk, end = torch.tensor([0.5]), torch.tensor([[3.0, 1.0]])
    with pytest.raises(ValueError, match="`case_id` must be the name of one bag, got one for different bags"):
        gather(ConcordanceIndexMetric, ((risk, end), ["a"]), ((risk + 1, end), ["a"])).get_buffer()


def test_bag_iteration_metric_counts_every_bag_without_names():
    metric = Value()
    metric(torch.ones(2, 1))
    metric(torch.ones(1, 1) * 4)
    assert metric.get_buffer().flatten().tolist() == [1, 1, 4]
    assert Value().get_buffer() is None


def test_bag_iteration_metric_takes_any_name_of_a_bag():
    metric = Value()
    metric(torch.arange(20.0)[:, None], case_id=[f"case {i}" for i in range(20)])
    assert metric.aggregate() == 9.5


def test_bag_iteration_metric_reset_removes_names():
    metric = Value()
    for _ in range(2):
        metric(torch.ones(1, 1), case_id=["a"])
        assert len(metric.get_buffer()) == 1
        metric.reset()


def test_bag_iteration_metric_averages_heads_first():
    heads = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    metric = AttentionMassMetric("effective_number")
    metric([heads])
    assert metric.aggregate() == pytest.approx(2)


def test_bag_iteration_metric_refuses_invalid_names():
    metric = InstanceLocalizationMetric()
    bag = torch.tensor([[0.1, 0.9]]), torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match="`case_id` must be one name for each of 1 bags, got 2"):
        metric(*bag, case_id=["a", "b"])
    metric(*bag, case_id=["a"])
    with pytest.raises(ValueError, match="`case_id` must be the name of one bag, got 'a' twice"):
        metric(*bag, case_id=["a"])
    with pytest.raises(ValueError, match="`y_pred` must be given before the value is computed, got none"):
        Value().aggregate()
