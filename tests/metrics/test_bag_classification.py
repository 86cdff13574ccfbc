"""Tests of metrics of bags: values by hand, comparison with scikit-learn, and batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from monai_mil_ext.metrics import BagClassificationMetric, bag_values

LABEL, TWO = [0, 0, 1, 1], np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]])
COHORTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=12)


def table(cohort):
    """Return labels of three classes and probabilities with ties."""
    scores = np.array([[a, b, 9 - max(a, b)] for _, a, b in cohort]) + 1.0
    return [label for label, *_ in cohort], scores / scores.sum(axis=1, keepdims=True)


def test_bag_values_of_two_classes_by_hand():
    """In order 1 0 1 0; predicted 0 1 1 1: recall 1/2 and 1, F1 2/3 and 4/5, 3 of 4 agree and 1/2 would by chance."""
    values = bag_values(LABEL, TWO)
    assert values == pytest.approx(
        {
            "bag_auroc": 3 / 4,
            "bag_auprc": (1 + 2 / 3) / 2,
            "bag_accuracy": 3 / 4,
            "bag_balanced_accuracy": 3 / 4,
            "bag_macro_f1": (2 / 3 + 4 / 5) / 2,
            "bag_kappa": 1 / 2,
        }
    )


def test_bag_values_balanced_accuracy():
    values = bag_values([0, 0, 0, 1], np.array([[0.9, 0.1]] * 4))
    assert values["bag_accuracy"] == 0.75
    assert values["bag_balanced_accuracy"] == 0.5
    assert values["bag_macro_f1"] == pytest.approx((6 / 7 + 0) / 2)
    assert values["bag_kappa"] == 0


def test_bag_values_of_one_probability_per_bag():
    assert bag_values(LABEL, TWO[:, 1:]) == bag_values(LABEL, TWO)


def test_bag_values_of_three_classes_are_one_against_the_rest():
    values = bag_values([0, 1, 2], np.eye(3))
    assert set(values.values()) == {1.0}
    flat = np.full((3, 3), 1 / 3)
    assert bag_values([0, 1, 2], flat)["bag_auroc"] == 0.5
    assert bag_values([0, 1, 2], flat)["bag_auprc"] == pytest.approx(1 / 3)


def test_bag_values_of_one_class_are_nan():
    values = bag_values([1, 1], np.array([[0.4, 0.6], [0.1, 0.9]]))
    assert [name for name, value in values.items() if math.isnan(value)] == ["bag_auroc", "bag_auprc", "bag_kappa"]
    assert bag_values([1, 1], np.array([[0.6, 0.4], [0.1, 0.9]]))["bag_kappa"] == 0


def test_bag_values_kappa_counts_absent_grades():
    """Grades 0, 1 and 3 of four: 3 is three from 0 and two from 1, although grade 2 does not occur."""
    kappa = bag_values([0, 0, 3, 3], np.eye(4)[[0, 1, 3, 0]], "quadratic")["bag_kappa"]
    observed, chance = 1 + 9, 2 / 4 * (1 + 9) + 2 / 4 * (2 * 9 + 4)
    assert kappa == pytest.approx(1 - observed / chance)


@given(COHORTS, st.sampled_from([None, "linear", "quadratic"]))
def test_bag_values_equal_scikit_learn(cohort, weights):
    label, probability = table(cohort)
    y, predicted = np.array(label), probability.argmax(axis=1)
    values = bag_values(label, probability, weights)
    assert values["bag_accuracy"] == pytest.approx(reference.accuracy_score(y, predicted))
    assert values["bag_macro_f1"] == pytest.approx(reference.f1_score(y, predicted, average="macro", zero_division=0))
    recalls = [np.mean(predicted[y == c] == c) for c in np.unique(y)]
    assert values["bag_balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if len(np.unique(y)) > 1:
        present = np.unique(y)
        auroc = [reference.roc_auc_score(y == c, probability[:, c]) for c in present]
        auprc = [reference.average_precision_score(y == c, probability[:, c]) for c in present]
        assert values["bag_auroc"] == pytest.approx(np.mean(auroc))
        assert values["bag_auprc"] == pytest.approx(np.mean(auprc))
    if len(np.union1d(y, predicted)) > 1:
        gap = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
        w = {None: gap > 0, "linear": gap, "quadratic": gap**2}[weights]
        observed = np.array([[np.sum((y == i) & (predicted == j)) for j in range(3)] for i in range(3)])
        chance = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / len(y)
        assert values["bag_kappa"] == pytest.approx(1 - (w * observed).sum() / (w * chance).sum())


@pytest.mark.filterwarnings("ignore:auroc is NaN", "ignore:auprc is NaN")
@given(COHORTS, st.integers(1, 4))
def test_bag_classification_metric_is_computed_over_all_bags(cohort, size):
    label, probability = table(cohort)
    for name in ("auroc", "auprc", "accuracy", "balanced_accuracy", "macro_f1", "kappa"):
        metric = BagClassificationMetric(name, kappa_weights="quadratic")
        y_pred, y = torch.tensor(probability), torch.tensor(label)
        for p, labels in zip(y_pred.split(size), y.split(size), strict=True):
            metric(list(p), list(labels))
        value = bag_values(label, probability, "quadratic")[f"bag_{name}"]
        assert metric.aggregate().item() == pytest.approx(value, nan_ok=True)


def test_bag_classification_metric_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`metric` must be one of .*'kappa', got 'f1'"):
        BagClassificationMetric("f1")
    for make in (lambda: bag_values(LABEL, TWO, "cubic"), lambda: BagClassificationMetric("kappa", "cubic")):
        with pytest.raises(ValueError, match="`kappa_weights` must be one of 'linear', 'quadratic', got 'cubic'"):
            make()
    with pytest.raises(ValueError, match=r"`y_pred` must be probabilities \(B, C\), got \(2,\)"):
        BagClassificationMetric()(torch.rand(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"`y` must be classes \(B,\) = \(2,\), got \(2, 3\)"):
        BagClassificationMetric()(torch.rand(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="`y_pred` must be given before the value is computed, got none"):
        BagClassificationMetric().aggregate()


LOGITS_OF_ONE = np.array([[-2.0], [-0.5], [0.2], [0.4]])


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (LOGITS_OF_ONE, r"in \[0, 1\], got -2"),
        (np.array([[0.9, 0.8]] * 4), "that sum to 1 over the classes, got a sum of 1.7"),
        (np.array([[0.5, math.nan]] * 4), r"in \[0, 1\], got nan"),
    ],
)
def test_metrics_of_bags_refuse_what_is_no_probability(values, got):
    """Accuracy of these logits at a threshold of 0.5 would be 0.5, and of their probabilities is 1."""
    with pytest.raises(ValueError, match=f"`probability` must be probabilities {got}"):
        bag_values(LABEL, values)
    with pytest.raises(ValueError, match=f"`y_pred` must be probabilities {got}"):
        BagClassificationMetric()(torch.tensor(values), torch.tensor(LABEL))


def test_bag_values_threshold_one_probability_at_one_half():
    values = bag_values(LABEL, 1 / (1 + np.exp(-LOGITS_OF_ONE)))
    assert (values["bag_accuracy"], values["bag_kappa"]) == (1, 1)


@pytest.mark.parametrize("label", [[0, 1, 2, 1], [0, -1, 1, 1], [0, 0.5, 1, 1], [0, math.nan, 1, 1]])
def test_metrics_of_bags_refuse_labels_that_are_no_class(label):
    with pytest.raises(ValueError, match=r"`label` must be 4 classes in \[0, 2\), got"):
        bag_values(label, TWO)
    with pytest.raises(ValueError, match=r"`label` must be 4 classes in \[0, 2\), got"):
        BagClassificationMetric()(torch.tensor(TWO), torch.tensor(label))


@pytest.mark.parametrize("name", ["auroc", "auprc"])
def test_bag_classification_metric_says_that_all_bags_are_of_one_class(name):
    metric = BagClassificationMetric(name)
    metric(torch.tensor(TWO), torch.ones(4))
    with pytest.warns(UserWarning, match=f"^{name} is NaN: all 4 bags are of class 1.$"):
        assert metric.aggregate().isnan()
