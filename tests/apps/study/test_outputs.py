"""Tests of loss, targets and outputs of a task."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.outputs import TaskOutputs, cross_validated_loss, fold_tasks, main_metric, with_bin_edges

BINARY = Task("classification", ("a", "b"))


def test_classes_are_weighted_only_if_one_is_rare():
    balanced = TaskOutputs.fit(BINARY, [{"label": int(i < 4)} for i in range(16)])
    rare = TaskOutputs.fit(BINARY, [{"label": int(i < 3)} for i in range(16)])
    assert (balanced.weights, balanced.note) == ((), "")
    assert rare.weights == (16 / 26, 16 / 6)
    assert "a 0.615, b 2.67" in rare.note


def test_bins_of_survival_have_equal_numbers_of_events():
    items = [{"time": float(t), "event": 1.0} for t in range(1, 41)]
    task = with_bin_edges(Task("survival"), items)
    bins = TaskOutputs(task).targets(items)[:, 0].int()
    assert torch.bincount(bins).tolist() == [10, 10, 10, 10]
    assert math.isinf(task.bin_edges[-1])
    with pytest.raises(ValueError, match="an observed event"):
        with_bin_edges(Task("survival"), [{"time": 1.0, "event": 0.0}, {"time": 0.0, "event": 1.0}])
    at_zero = [{"time": 0.0, "event": 1.0}] * 90
    assert with_bin_edges(Task("survival"), [*items, *at_zero]) == task


def test_an_event_after_the_last_bin_is_not_observed():
    outputs = TaskOutputs(Task("survival", bin_edges=(1.0, 2.0)))
    items = [{"time": t, "event": 1.0} for t in (1.0, 1.5, 3.0)]
    assert outputs.targets(items).tolist() == [[0, 1], [1, 1], [1, 0]]


def test_survival_at_finite_edges_and_a_risk_that_is_higher_for_earlier_events():
    outputs = TaskOutputs(Task("survival", bin_edges=(1.0, 2.0, math.inf)))
    arrays = outputs.arrays(torch.tensor([[5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]]))
    assert arrays.survival.shape == (2, 2)
    assert arrays.output[0, 0] > arrays.output[1, 0]


def test_values_of_a_regression_return_to_their_unit():
    items = [{"label": v} for v in (1.0, 5.0, 9.0)]
    outputs = TaskOutputs.fit(Task("regression"), items)
    assert outputs.arrays(outputs.targets(items)[:, None]).output[:, 0] == pytest.approx([1.0, 5.0, 9.0])


def test_an_unknown_label_is_nan():
    task = Task("multilabel", ("p", "q"))
    items = [{"label": [1.0, math.nan]}, {"label": [0.0, 1.0]}]
    outputs = TaskOutputs.fit(task, items)
    loss = outputs.loss()(torch.zeros(2, 2), outputs.targets(items))
    assert loss.item() == pytest.approx(math.log(2))


def test_main_metrics():
    rng = np.random.default_rng(0)
    truth, score = rng.integers(0, 2, 50), rng.random(50)
    found = main_metric(BINARY, truth, np.column_stack([1 - score, score]))
    assert found == {"auroc": pytest.approx(roc_auc_score(truth, score))}
    time = np.column_stack([np.arange(1.0, 5), np.ones(4)])
    assert main_metric(Task("cox"), time, np.array([[4.0], [3.0], [2.0], [1.0]])) == {"c_index": 1.0}
    labels = np.array([[0.0, math.nan], [1.0, 1.0]])
    assert main_metric(Task("multilabel", ("p", "q")), labels, np.nan_to_num(labels)) == {"auroc": 1.0}


def test_bins_of_a_fold_are_those_of_its_training_part():
    items = [{"time": float(time), "event": time % 2} for time in range(1, 41)]
    task, folds = fold_tasks(Task("survival"), items, [items[:20], items[20:], [{"time": 1.0, "event": 0}]])
    assert folds[0] == with_bin_edges(Task("survival"), items[:20])
    assert folds[1] == with_bin_edges(Task("survival"), items[20:])
    assert folds[2] == with_bin_edges(Task("survival"), items)
    assert task.bin_edges[-2] == folds[0].bin_edges[-2] < folds[2].bin_edges[-2]


@pytest.mark.parametrize("task", [Task("cox"), Task("survival", bin_edges=(5.0, 9.0))])
def test_bins_that_are_given_are_those_of_all_folds(task):
    assert fold_tasks(task, [{"time": 1.0, "event": 1}], [[], []]) == (task, [task, task])


def test_one_validation_case_has_a_loss_of_its_own():
    train = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0, 1.0], [9.0, 1.0]])
    early, late = (torch.tensor([[time, 1.0]]) for time in (0.5, 9.5))
    high, low = torch.tensor([[3.0]]), torch.tensor([[-3.0]])
    assert cross_validated_loss(high, early, *train) < cross_validated_loss(low, early, *train)
    assert cross_validated_loss(high, late, *train) > cross_validated_loss(low, late, *train)
