"""Tests of class labels as tables and JSON write them."""

import pytest

from monai_mil_ext.data import CohortColumns
from monai_mil_ext.data.cohorts.class_labels import class_index, describe_words


@pytest.mark.parametrize(
    ("value", "classes", "expected"),
    [
        ("0.0", None, 0),
        ("1.", None, 1),
        ("1,0", None, 1),  # with the decimal comma of a table with semicolons
        (" 2 ", None, 2),
        ("007", None, 7),
        (3.0, None, 3),
        ("b", ["a", "b"], 1),
        (" b ", ["a", "b"], 1),
        ("1", ["a", "b"], 1),
        (0, ["a", "b"], 0),
        ("2", ["1", "2"], 1),  # a name, although it is a number
        ("2.0", ["1", "2"], 1),
        (3, [2, 3], 1),
        ("False", ["False", "True"], 0),
        (True, ["False", "True"], 1),
        ("None", ["None", "some"], 0),
    ],
)
def test_class_index_of_names_and_numbers(value, classes, expected):
    assert class_index(value, classes) == expected


@pytest.mark.parametrize(
    ("value", "options", "match"),
    [
        ("nan", {}, "a class index, or a name if `classes` is given, got 'nan'"),
        ("", {}, "a class index, or a name if `classes` is given, got an empty cell"),
        (None, {}, "got an empty cell"),
        ("True", {}, "a class index, or a name if `classes` is given, got 'True'"),
        (True, {}, "a class index, or a name if `classes` is given, got True"),
        ("-1", {}, "a class index, .* got '-1'"),
        ("1.5", {}, "a class index, .* got '1.5'"),
        ("²", {}, "a class index, .* got '²'"),
        ("9" * 30, {}, "a class index"),
        ("2", {"num_classes": 2}, "a class index from 0 to 1, got '2'"),
        ("2.0", {"classes": ["a", "b"]}, "a class index from 0 to 1, got '2.0'"),
        ("0", {"classes": ["1", "2"]}, "one of '1', '2', got '0'"),
        ("c", {"classes": ["a", "b"]}, "one of 'a', 'b', got 'c'"),
    ],
)
def test_class_index_refuses_what_is_no_class(value, options, match):
    with pytest.raises(ValueError, match=match):
        class_index(value, **options)


@pytest.mark.parametrize(
    ("values", "classes", "start"),
    [
        (["b", "a", "", "nan"], None, "labels are a, b: give --class_names \"['a','b']\""),
        (["a, b", "c"], None, "labels are 'a, b', 'c': give --class_names \"['a, b','c']\""),
        (["True", "False"], None, "labels are False, True: give --class_names \"['False','True']\""),
        (["b", "a"], ["x", "y"], "labels are a, b: give"),
        (["b", "a"], ["a", "y"], ""),  # b is a mistake in its row
        (["0", "1.0", "tumor"], None, ""),
        (["", "nan", "NA", "<NA>"], None, ""),
        ([], None, ""),
        (["1.5", "-2"], None, "labels are numbers such as -2: give --columns#numeric True"),
        ([f"t{i}" for i in range(30)], None, "labels are 30 texts such as 't0': give a column of classes"),
    ],
)
def test_describe_words_of_a_whole_cohort(values, classes, start):
    text = describe_words(values, classes)
    assert text.startswith(start) if start else text == ""


def test_columns_of_bits_are_read_as_data_frames_write_them():
    columns = CohortColumns(label=["a", "b"], time="t", event="e")
    values, errors = columns.values({"a": "1.0", "b": "<NA>", "t": "3", "e": "0.0"})
    assert (values["label"].tolist()[0], values["event"], errors) == (1.0, 0, [])
