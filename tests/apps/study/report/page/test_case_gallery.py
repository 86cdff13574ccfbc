"""Tests of the gallery of cases."""

import pytest

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report.page.case_gallery import case_gallery

BINARY = Task("classification", ("benign", "malignant"))


def rows(count, **more):
    given = {"truth": "benign", "outputs": {"ABMIL": 0.25, "QGMIL": 0.5}, "pictures": [b"\xff\xd8"], **more}
    return [{"case_id": f"c{i}", "error": 1 - i / count, **given} for i in range(count)]


@pytest.mark.parametrize(
    ("task", "truth", "output", "text"),
    [
        (BINARY, "benign", 0.25, "c0: benign; probability of malignant by ABMIL 0.25; error 1.00"),
        (Task("cox"), "event at 3", 0.5, "c0: event at 3; risk by ABMIL 0.50; error 1.00"),
        (Task("regression"), 3.25, 2.0, "c0: 3.25; value by ABMIL 2.00; error 1.00"),
        (Task("ordinal", ("a", "b", "c")), "a", "b (0.71)", "c0: a; prediction by ABMIL b (0.71); error 1.00"),
        (BINARY, "benign", None, "c0: benign; no prediction by ABMIL; error 1.00"),
    ],
)
def test_captions_name_truth_and_prediction(task, truth, output, text):
    (group,) = case_gallery(rows(1, truth=truth, outputs={"ABMIL": output}), task, 100)
    assert group["figures"] == [{"caption": text, "sources": ["data:image/jpeg;base64,/9g="]}]


def test_the_smallest_errors_come_last_and_are_ranked():
    greatest, smallest = case_gallery(rows(6), BINARY, 100)
    assert (greatest["title"], smallest["title"]) == ("Greatest errors", "Smallest errors")
    assert [figure["caption"][:2] for figure in greatest["figures"]] == ["c0", "c1", "c2"]
    assert [figure["caption"][:2] for figure in smallest["figures"]] == ["c5", "c4", "c3"]


def test_pictures_beyond_the_limit_are_left_out_evenly():
    greatest, smallest = case_gallery(rows(6), BINARY, 2 * 3)
    assert [len(group["figures"]) for group in (greatest, smallest)] == [2, 1]
    assert case_gallery(rows(6), BINARY, 1) == []
    assert case_gallery(rows(3, pictures=[]), BINARY, 100) == []
