"""Tests of tasks in this process and in several."""

import pytest

from monai_mil_ext.utils import run_tasks
from monai_mil_ext.utils.parallel import KILLED, _without_killed


def test_tasks_of_this_process_are_done_when_they_are_asked_for():
    done = []
    outcomes = run_tasks(done.append, [3, 4])
    assert done == []
    assert next(outcomes) == (0, None)
    assert done == [3]


def test_an_error_of_a_task_in_this_process_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        [*run_tasks(lambda task: 1 / task, [1, 0])]


def test_a_killed_process_is_an_error_or_a_result():
    outcomes = [(0, None), (1, KILLED)]
    assert [*_without_killed(iter(outcomes), "killed")] == [(0, None), (1, "killed")]
    with pytest.raises(RuntimeError, match="the process of task 2 was killed each time"):
        [*_without_killed(iter(outcomes), None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "`jobs` must be"),
        ({"gpus": -1}, "`gpus` must be an integer from 0, got -1"),
        ({"gpus": 1}, "`gpus` must be 0 without `scheduler`, .* got 1"),
    ],
)
def test_run_tasks_names_a_bad_option_before_the_first_task(options, message):
    with pytest.raises(ValueError, match=message):
        run_tasks(abs, [1], **options)
