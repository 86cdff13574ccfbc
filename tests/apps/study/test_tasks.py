"""Tests of the task of a study."""

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import Task, as_names


@pytest.mark.parametrize(
    ("task", "num_logits"),
    [
        (Task("classification", ["a", "b", "c"]), 3),
        (Task("multilabel", ["a"]), 1),
        (Task("ordinal", ["0", "1", "2"]), 2),
        (Task("regression"), 1),
        (Task("survival", bin_edges=[1, 2, float("inf")]), 3),
        (Task("cox"), 1),
    ],
)
def test_number_of_logits(task: Task, num_logits: int) -> None:
    assert task.num_logits == num_logits


def test_truth_and_classes() -> None:
    multi = Task("multilabel", ["a", "b"])
    items = [{"label": torch.tensor([1.0, float("nan")])}, {"label": torch.tensor([1.0, 1.0])}]
    np.testing.assert_array_equal(multi.truth(items), [[1, np.nan], [1, 1]])
    assert multi.classes(items) == ["a", "a+b"]
    times = [{"time": 3.5, "event": 1}, {"time": 2.0, "event": 0}]
    np.testing.assert_array_equal(Task("cox").truth(times), [[3.5, 1], [2, 0]])
    assert Task("cox").classes(times) == ["event", "censored"]
    assert Task("regression").classes([{"label": 0.5}]) is None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("quantum",), "`kind` must be one of"),
        (("classification", ["a"]), "2 or more different names for classification, got"),
        (("classification", ["a", "a"]), "2 or more different names"),
        (("regression", ["a"]), "must be empty for regression"),
    ],
)
def test_bad_tasks_are_refused(arguments: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Task(*arguments)


def test_names_of_a_command_line():
    assert [as_names(names) for names in ("age, sex", ("age",), None, "")] == [["age", "sex"], ["age"], [], []]
