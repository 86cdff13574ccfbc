"""Tests of the cases of the report of a study."""

import io

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.apps.study import Predictions, Task
from monai_mil_ext.apps.study.report import case_errors, case_picture, case_rows
from monai_mil_ext.apps.study.report.page.report_cases import by_error


def predictions(truth, output, repeat=None, fold=None, part="test", cases="abcdef"):
    count = len(truth)
    names = [cases[i % len(cases)] for i in range(count)]
    rows = {"case_id": names, "patient": names, "site": [""] * count, "part": [part] * count}
    numbers = {"repeat": repeat or [0] * count, "fold": fold or [0] * count}
    arrays = {name: np.array(values) for name, values in numbers.items()}
    return Predictions(**rows, **arrays, truth=np.array(truth), output=np.array(output, dtype=float))


def test_errors_of_each_task():
    binary = Task("classification", ("no", "yes"))
    assert case_errors(predictions([0, 1], [[0.7, 0.3], [0.8, 0.2]]), binary) == pytest.approx([0.3, 0.8])
    ordinal = Task("ordinal", ("a", "b", "c"))
    assert case_errors(predictions([2], [[0.5, 0.5, 0]]), ordinal) == pytest.approx([1.5])
    assert case_errors(predictions([3.0], [[5.0]]), Task("regression")) == pytest.approx([2.0])
    labels = Task("multilabel", ("a", "b"))
    found = case_errors(predictions([[1, np.nan], [np.nan, np.nan]], [[0.9, 0.9], [0.5, 0.5]]), labels)
    assert found == pytest.approx([0.1, np.nan], nan_ok=True)


def test_survival_errors_are_wrong_ranks_of_the_same_fold():
    truth = [[1, 1], [2, 1], [3, 0], [1, 1], [9, 1]]
    risks = [[3], [1], [2], [0], [7]]
    found = case_errors(predictions(truth, risks, fold=[0, 0, 0, 1, 1]), Task("cox"))
    # fold 0: a-b and a-c are right, b-c is wrong; fold 1: its only pair is wrong
    assert found == pytest.approx([0, 0.5, 0.5, 1, 1])
    alone = case_errors(predictions([[1, 0], [2, 0]], [[1], [2]]), Task("cox"))
    assert np.isnan(alone).all()


def test_rows_are_sorted_and_average_repeats():
    task = Task("classification", ("no", "yes"))
    one = predictions([0, 1, 0, 1], [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.4, 0.6]], repeat=[0, 0, 1, 1], cases="ab")
    other = predictions([0, 1], [[0.2, 0.8], [np.nan, np.nan]], cases="ab")
    rows = case_rows({"one": one, "other": other}, task, instances={"a": 5})
    assert [row["case_id"] for row in rows] == ["b", "a"]
    assert rows[0]["error"] == pytest.approx(0.5)
    assert rows[1]["outputs"] == pytest.approx({"one": 0.2, "other": 0.8})
    assert rows[0]["outputs"]["other"] is None
    assert (rows[0]["truth"], rows[1]["num_instances"], rows[0]["num_instances"]) == ("yes", 5, None)
    assert case_rows({"one": one, "other": other}, task, "other")[0]["case_id"] == "a"


def test_rows_have_words_for_labels():
    survival = case_rows({"m": predictions([[12.5, 1]], [[0.3]])}, Task("cox"))[0]
    assert (survival["truth"], survival["outputs"]) == ("event at 12.5", {"m": 0.3})
    labels = case_rows({"m": predictions([[1, np.nan]], [[0.9, 0.2]])}, Task("multilabel", ("a", "b")))[0]
    assert (labels["truth"], labels["outputs"]["m"]) == ("a, 1 unknown", "a 0.90, b 0.20")
    several = case_rows({"m": predictions([2], [[0.1, 0.2, 0.7]])}, Task("classification", ("x", "y", "z")))[0]
    assert (several["truth"], several["outputs"]["m"]) == ("z", "z (0.70)")


def test_cases_without_an_error_come_last():
    rows = [{"case_id": "a", "error": np.nan}, {"case_id": "b", "error": 0.1}, {"case_id": "c"}]
    assert [row["case_id"] for row in by_error([*rows, {"case_id": "d", "error": 0.5}])] == ["d", "b", "a", "c"]


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"position": np.linspace(-50, 50, 30)},
        {"coords": np.stack([np.arange(30) % 6, np.arange(30) // 6], 1) * 256},
    ],
)
def test_case_picture_is_small(places):
    code = case_picture(np.full(30, 1 / 30), **places)
    assert Image.open(io.BytesIO(code)).format == "PNG"
    assert len(code) < 30_000


def test_case_picture_of_one_instance():
    for places in ({}, {"coords": np.zeros((1, 2))}):
        assert case_picture(np.ones(1), **places).startswith(b"\x89PNG")


def test_slices_are_drawn_along_their_positions():
    places = {"position": np.arange(4.0), "coords": np.zeros((4, 3))}
    assert case_picture(np.ones(4), **places) == case_picture(np.ones(4), position=np.arange(4.0))


def test_case_picture_needs_a_place_for_each_weight():
    with pytest.raises(ValueError, match="`attention` must have a weight for each place, got 3 for 2"):
        case_picture(np.ones(3) / 3, np.zeros(2))


def test_map_of_tiles_shows_where_the_attention_is():
    coords = np.stack([np.arange(100) % 10, np.arange(100) // 10], 1) * 512
    weights = np.where((coords[:, 0] < 2560) & (coords[:, 1] < 2560), 1.0, 0.01)  # upper left
    image = np.asarray(Image.open(io.BytesIO(case_picture(weights / weights.sum(), coords=coords))).convert("L"), float)
    drawn = np.argwhere(image < 250)
    middle = (drawn.min(0) + drawn.max(0)) // 2
    parts = (image[: middle[0], : middle[1]], image[middle[0] :, middle[1] :])
    upper, lower = (part[part < 250].mean() for part in parts)
    assert upper > lower
