"""Tests of the encoding of clinical variables."""

import json
import math

import pytest

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.clinical import CovariateEncoding

BINARY = Task("classification", ("benign", "malignant"))


def items_of(**columns):
    rows = zip(*columns.values(), strict=True)
    return [{"case_id": f"c{i}", "covariates": dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["61", "5.5", "-7e1", "nan"], "number"),
        (["0", "1", "1", ""], "number"),
        (["1", "2", "1", ""], "category"),
        (["1", "2", "3", "x"], "category"),
        (["f", "m", "m", "unknown"], "category"),
    ],
)
def test_kinds_are_found_from_the_cells(cells, kind):
    assert CovariateEncoding.fit(items_of(x=cells * 2)).variables[0].kind == kind


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "none", "Unknown", "?", "N/A", "not reported"])
def test_a_missing_number_is_the_training_median_with_an_indicator(cell):
    encoding = CovariateEncoding.fit(items_of(age=["50", "60", "90", cell]))
    assert encoding.columns == ["age", "age: missing"]
    assert encoding.encode(items_of(age=[cell, "70"])).tolist() == [[60, 1], [70, 0]]


def test_without_missing_values_in_training_there_is_no_indicator():
    encoding = CovariateEncoding.fit(items_of(age=["50", "60", "90"]))
    assert encoding.columns == ["age"]
    assert encoding.encode([{"covariates": {}}, {}]).tolist() == [[60], [60]]


def test_missing_categories_are_a_category_and_new_ones_count_as_missing():
    encoding = CovariateEncoding.fit(items_of(stage=["I", "II", "i ", "unknown"]))
    assert encoding.columns == ["stage: I", "stage: II", "stage: missing"]
    items = items_of(stage=["II", "V", "", "I"])
    assert encoding.encode(items).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]
    assert encoding.encode_notes(items) == [
        "1 of 4 cases have a value of 'stage' that the training part lacks; it was treated as missing."
    ]


def test_a_category_new_in_test_without_missing_ones_in_training_is_the_average():
    encoding = CovariateEncoding.fit(items_of(sex=["f", "m", "m", "m"]))
    assert encoding.encode(items_of(sex=["d"])).tolist() == [[0.75, 0.25]]


def test_none_is_a_category_of_its_own():
    assert CovariateEncoding.fit(items_of(prior=["none", "surgery", "none", ""])).columns == [
        "prior: none",
        "prior: missing",
        "prior: surgery",
    ]


def test_numbers_that_a_data_frame_wrote_are_one_category():
    encoding = CovariateEncoding.fit(items_of(grade=["1", "2.0", "1.0", "2"]), kinds={"grade": "category"})
    assert encoding.columns == ["grade: 1", "grade: 2"]


def test_text_in_a_column_of_numbers_is_missing_in_test():
    encoding = CovariateEncoding.fit(items_of(age=["50", "60", "90", ""]))
    items = items_of(age=["old", "1_0", "inf"])
    assert encoding.encode(items).tolist() == [[60, 1]] * 3
    assert encoding.encode_notes(items)[0].startswith("3 of 3 cases")


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        (["1,5", "2", "3", "4"], "'1,5'"),
        (["1,5", "2,5", "n", "x"], "'1,5'"),
        ([*map(str, range(20)), ">80"], "'>80'"),
        ([*map(str, range(20)), "Ann Lee"], "text"),
    ],
)
def test_numbers_mixed_with_text_are_refused_without_words(cells, shown):
    with pytest.raises(ValueError, match=rf"`age` must be a column of numbers with a decimal point .*got {shown}"):
        CovariateEncoding.fit(items_of(age=cells))


def test_a_kind_that_is_given_holds_and_is_checked():
    items = items_of(age=["1", "2", "x"])
    twice = CovariateEncoding.fit([*items, *items], kinds={"age": "category"})
    assert twice.columns == ["age: 1", "age: 2", "age: x"]
    with pytest.raises(ValueError, match="`age` must be a column of numbers"):
        CovariateEncoding.fit(items, kinds={"age": "number"})
    with pytest.raises(ValueError, match="kinds"):
        CovariateEncoding.fit(items, kinds={"age": "text"})
    with pytest.raises(ValueError, match="kinds"):
        CovariateEncoding.fit(items, kinds={"agee": "number"})
    with pytest.raises(ValueError, match=r"`columns` must be columns of the table, got \['agee'\]"):
        CovariateEncoding.fit(items, columns=["agee"])


def test_useless_columns_are_left_out_with_a_note():
    names = [f"id {i}" for i in range(6)]
    items = items_of(
        same=["x"] * 6,
        date=[f"2024-01-0{i + 1}" for i in range(6)],
        diagnosis=["cancer", "none", "cancer", "none", "cancer", ""],
        empty=[""] * 6,
        number=["1", "2", "3", "4", "5", "7"],
        age=["1", "2", "9", "4", "", "6"],
    )
    for item, name, label in zip(items, names, (1, 0, 1, 0, 1, 0), strict=True):
        item |= {"patient": item["covariates"]["number"], "label": label, "name": name}
    encoding = CovariateEncoding.fit(items, task=BINARY)
    assert [variable.name for variable in encoding.variables] == ["age"]
    reasons = {note.split("'")[1]: note.split(": ")[1] for note in encoding.notes}
    assert reasons == {
        "same": "it has the same value in all training cases.",
        "date": "it differs in most cases, like an identifier or a date.",
        "diagnosis": "it equals the label.",
        "empty": "no training case has a value.",
        "number": "it identifies cases or patients.",
    }


def test_a_number_that_equals_a_value_or_a_time_is_left_out():
    values = [1.5, 7, 3, 2, 9]
    items = items_of(months=[str(12 * value) for value in values], other=[str(value**2) for value in values])
    for item, value in zip(items, values, strict=True):
        item |= {"label": value, "time": value, "event": 1}
    for task in (Task("regression"), Task("cox")):
        assert [variable.name for variable in CovariateEncoding.fit(items, task=task).variables] == ["other"]


def test_json_keeps_the_encoding():
    encoding = CovariateEncoding.fit(items_of(age=["50", "60", "", "63"], sex=["f", "m", "m", ""], same=["1"] * 4))
    read = CovariateEncoding.from_json(json.loads(json.dumps(encoding.to_json())))
    items = items_of(age=["", "70", "51"], sex=["M", "d", ""])
    assert read.encode(items).tolist() == encoding.encode(items).tolist()
    assert read.columns == encoding.columns
    assert list(read.notes) == list(encoding.notes)
    assert not any(math.isnan(value) for row in read.encode(items) for value in row)


def test_no_variables_give_no_columns():
    assert CovariateEncoding.fit([{"case_id": "a"}, {"case_id": "b"}]).encode([{}, {}]).shape == (2, 0)
