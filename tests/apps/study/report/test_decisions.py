"""Thresholds come from validation parts; values of decisions equal scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from monai_mil_ext.apps.study import Predictions
from monai_mil_ext.apps.study.report.decisions import (
    binary_values,
    confusion_counts,
    confusion_values,
    fold_thresholds,
    kappa,
)

from .made import study, table, two


def test_values_equal_scikit_learn():
    rng = np.random.default_rng(0)
    y, predicted, weights = rng.integers(0, 3, 50), rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50)).astype(float)
    counts = confusion_counts(y, predicted, weights, 3)
    for s, w in enumerate(weights):
        kwargs = {"sample_weight": w}
        assert counts[s].tolist() == metrics.confusion_matrix(y, predicted, **kwargs).tolist()
        expected = {
            "accuracy": metrics.accuracy_score(y, predicted, **kwargs),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted, **kwargs),
            "macro_f1": metrics.f1_score(y, predicted, average="macro", **kwargs),
        }
        assert {name: values[s] for name, values in confusion_values(counts).items()} == pytest.approx(expected)
        assert kappa(counts)[s] == pytest.approx(metrics.cohen_kappa_score(y, predicted, weights="quadratic", **kwargs))
        one = {name: values[s] for name, values in binary_values(counts, 1).items()}
        assert one["sensitivity"] == pytest.approx(metrics.recall_score(y == 1, predicted == 1, **kwargs))
        assert one["specificity"] == pytest.approx(metrics.recall_score(y != 1, predicted != 1, **kwargs))
        assert one["ppv"] == pytest.approx(metrics.precision_score(y == 1, predicted == 1, **kwargs))
        assert one["npv"] == pytest.approx(metrics.precision_score(y != 1, predicted != 1, **kwargs))


def test_kappa_of_labels_of_one_class_is_nan():
    assert np.isnan(kappa(np.array([[[3.0, 1.0], [0.0, 0.0]]])))


def test_a_threshold_does_not_see_the_test_part():
    val = [
        table(y, two(np.array(s)), fold=np.full(6, k), part="val")
        for k, (y, s) in enumerate(
            [([0, 0, 0, 1, 1, 1], [-3, -2, -1, 0, 1, 2]), ([0, 0, 0, 1, 1, 1], [0, 0, 0, 3, 3, 3])]
        )
    ]
    test = table([0, 1], two(np.array([0.0, 1.0])), fold=np.array([0, 1]))
    flipped = table([1, 0], two(np.array([5.0, -5.0])), fold=np.array([0, 1]))
    chosen = [fold_thresholds(Predictions.concatenate([*val, rows]))[0] for rows in (test, flipped)]
    assert chosen[0] == chosen[1]
    for fold, scores in ((0, [-1.0, 0.0]), (1, [0.0, 3.0])):
        assert chosen[0][fold] == pytest.approx(two(np.array(scores))[:, 1].mean())


def test_a_validation_part_that_decides_nothing_gives_a_half_and_a_note():
    predictions = study("binary")
    few = Predictions.concatenate([predictions.of_part("test"), predictions.of_part("val").select(np.arange(4))])
    chosen, notes = fold_thresholds(few)
    assert all(values.tolist() == [0.5] for values in chosen.values())
    assert len(notes) == 1
    assert "all folds is 0.5" in notes[0]
    assert fold_thresholds(predictions)[1] == []


def test_each_label_has_its_threshold():
    chosen, notes = fold_thresholds(study("multilabel", 200))
    assert notes == []
    assert sorted(chosen) == [0, 1, 2, 3, 4]
    assert all(len(set(values.tolist())) == 3 for values in chosen.values())
