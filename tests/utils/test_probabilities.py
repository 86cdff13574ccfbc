"""Tests of probabilities: of each task from logits, refused when they are none, and the classes that they predict."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.utils import (
    check_class_names,
    check_probabilities,
    class_probabilities,
    format_prediction,
    logits_to_probabilities,
    predicted_classes,
)

TASKS = ("classification", "multilabel", "ordinal", "survival")
LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=5)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, dtype=float)))


def test_logits_to_probabilities_of_each_task_by_hand():
    z = [-1.0, 0.5, 2.0]
    by_hand = {
        "classification": np.exp(z) / np.exp(z).sum(),
        "multilabel": sigmoid(z),
        "survival": np.cumprod(1 - sigmoid(z)),
        "ordinal": [1 - sigmoid(-1), 0, 0, sigmoid(-1)],  # "above 1" is never more likely than "above 0"
    }
    for task, expected in by_hand.items():
        assert logits_to_probabilities(torch.tensor(z), task).numpy() == pytest.approx(np.asarray(expected), abs=1e-6)


@pytest.mark.parametrize("z", [-90.0, -3.0, 0.0, 1.5, 90.0])
def test_one_logit_is_that_of_the_second_of_two_classes(z):
    assert logits_to_probabilities(torch.tensor([z])).tolist() == pytest.approx([1 - sigmoid(z), sigmoid(z)])


@given(LOGITS, st.sampled_from(TASKS), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_probabilities_of_any_logits_pass_the_check(z, task, dtype):
    p = logits_to_probabilities(torch.tensor(z, dtype=dtype), task)
    assert p.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    check_probabilities(p, task)


def test_probabilities_of_a_batch_are_those_of_its_rows():
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for task in TASKS:
        rows = torch.stack([logits_to_probabilities(row, task) for row in z])
        torch.testing.assert_close(logits_to_probabilities(z, task), rows)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("wrong", [[1.8387], [-2.0, -0.5], [0.5, float("nan")], [float("inf"), 0.0], [1.001], [-0.001]])
def test_check_probabilities_refuses_what_is_not_in_0_to_1(task, wrong):
    for values in (wrong, np.array(wrong), torch.tensor(wrong), torch.tensor([wrong])):
        with pytest.raises(
            ValueError, match=r"`pred` must be probabilities in \[0, 1\], got .*; BagProbabilitiesd makes"
        ):
            check_probabilities(values, task)


@pytest.mark.parametrize("wrong", [[0.9, 0.8], [0.2, 0.2], [[0.5, 0.5], [0.6, 0.6]], [0.3, 0.3, 0.3]])
def test_check_probabilities_of_exclusive_classes_must_sum_to_one(wrong):
    for task in ("classification", "ordinal"):
        with pytest.raises(ValueError, match=r"`p` must be probabilities that sum to 1 over the classes, got a sum of"):
            check_probabilities(wrong, task, name="p")
    check_probabilities(wrong, "multilabel")


def test_check_probabilities_accepts_rounding_in_any_precision():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for seed in range(20):
            z = torch.randn(8, 1 + seed % 6 + 1, generator=torch.Generator().manual_seed(seed))
            check_probabilities((3 * z).softmax(1).to(dtype))
    check_probabilities([1 + 1e-7, -1e-7])
    check_probabilities(torch.tensor([0, 1]))


def test_check_probabilities_of_survival_must_not_increase():
    check_probabilities([0.9, 0.9, 0.1], "survival")
    with pytest.raises(ValueError, match="`pred` must be probabilities of survival that never increase, got"):
        check_probabilities([0.5, 0.9], "survival")


@pytest.mark.parametrize("values", [0.5, [], [[]]])
def test_check_probabilities_needs_a_class(values):
    with pytest.raises(ValueError, match=r"`pred` must be probabilities \(\.\.\., C\), got shape"):
        check_probabilities(values)


@pytest.mark.parametrize("task", ["regression", "cox"])
def test_values_are_no_probabilities(task):
    z = torch.tensor([[-1.5], [40.0]])
    assert logits_to_probabilities(z.half(), task).tolist() == z.tolist()
    assert class_probabilities(z, task).tolist() == z.tolist()
    assert predicted_classes(z[0], task) is None
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=f"`pred` must be finite, got {value}"):
            check_probabilities([0.5, value], task)


def test_an_unknown_task_is_named():
    for call in (
        lambda: check_probabilities([1.0], "binary"),
        lambda: logits_to_probabilities(torch.ones(2), "binary"),
    ):
        with pytest.raises(ValueError, match=r"`task` must be one of 'classification', 'ordinal', .*, got 'binary'"):
            call()


def test_class_probabilities_have_a_column_for_each_class():
    assert class_probabilities(torch.tensor([[0.25], [1.0]])).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert class_probabilities([0.25], "multilabel").tolist() == [0.25]
    assert class_probabilities([0.25], "survival").tolist() == [0.25]
    assert class_probabilities([0.25, 0.25, 0.5]).tolist() == [0.25, 0.25, 0.5]
    assert class_probabilities([1 + 1e-7, -1e-7]).tolist() == [1, 0]


@pytest.mark.parametrize("p", [0.03, 0.5, 0.51, 0.97])
def test_predicted_class_of_one_probability_is_at_one_half(p):
    assert predicted_classes(class_probabilities([p])) == int(p > 0.5)


def test_predicted_classes_of_each_task():
    p = torch.tensor([0.6, 0.1, 0.9])
    assert predicted_classes(p, "multilabel") == [1, 0, 1]
    assert predicted_classes(p, "survival") is None
    assert predicted_classes(torch.tensor([0.2, 0.4, 0.4]), "ordinal") == 1


def test_format_prediction_shows_no_logit_as_probability():
    assert format_prediction([0.97]) == format_prediction([0.03, 0.97]) == "probability 0.97"
    assert format_prediction([0.1, 0.2, 0.7]) == "class 2, probability 0.70"
    # two classes: the second one's, whichever is predicted
    assert format_prediction([0.9, 0.1], class_names=["benign", "malignant"]) == "probability of malignant 0.10"
    assert format_prediction([0.1, 0.2, 0.7], class_names=["a", "b", "c"]) == "c, probability 0.70"
    assert format_prediction([0.9, 0.8], "multilabel") == "probabilities 0.90, 0.80"
    assert format_prediction([0.9, 0.8], "multilabel", ["a", "b"]) == "probabilities of a 0.90, b 0.80"
    assert format_prediction([0.9], "multilabel", ["lesion"]) == "probability of lesion 0.90"
    assert format_prediction([0.9], "multilabel") == "probability 0.90"
    assert format_prediction([0.9, 0.5], "survival") == "survival 0.90, 0.50"
    assert format_prediction([0.9, 0.5], "survival", bin_edges=[6, None]) == "survival 0.90 at 6, 0.50 at inf"
    assert format_prediction([-61.52], "regression") == "value -61.52"
    assert format_prediction([1.0, 2.5], "regression") == "value 1, 2.5"
    assert format_prediction([1.25], "cox") == "risk 1.25 (log hazard, relative)"
    with pytest.raises(ValueError, match=r"`pred` must be probabilities in \[0, 1\], got 1.84"):
        format_prediction([1.84])


def test_check_class_names():
    check_class_names(None, 3)
    check_class_names(("a", "b"), 2)
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 3 classes, got \['a', 'b'\]"):
        check_class_names(("a", "b"), 3)


@pytest.mark.parametrize("names", ["ab", ["a", "a"], [1, "1"]])
def test_check_class_names_refuses_text_and_repeated_names(names):
    with pytest.raises(ValueError, match="`class_names` must be a list of different names, got"):
        check_class_names(names, 2)
