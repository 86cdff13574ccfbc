"""Tests of the kind of the labels of a column."""

import pytest

from monai_mil_ext.data.cohorts.tables.label_kinds import find_kind, order_names


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["1", "0", "1"], ["0", "1"]),
        (["1.0", "0.0", ""], ["0", "1"]),  # as data frames write them
        (["1", "-1"], ["-1", "1"]),
        (["2", "1"], ["1", "2"]),
        (["tumor", "no tumor", "NA"], ["no tumor", "tumor"]),
        (["MUT", "WT"], ["WT", "MUT"]),
        (["mutated", "wild-type"], ["wild-type", "mutated"]),
        (["Abnormal", "Normal"], ["Normal", "Abnormal"]),
        (["True", "False"], ["False", "True"]),
        (["MSI-H", "MSS"], ["MSS", "MSI-H"]),
        (["LUSC", "LUAD"], ["LUAD", "LUSC"]),
        (["responder", "non-responder"], ["non-responder", "responder"]),
        (["high", "low"], ["low", "high"]),
        (["0", "1", "2", "3"], ["0", "1", "2", "3"]),
        (["5", "1", "2", "3", "4"], ["1", "2", "3", "4", "5"]),
        (["luma", "lumb", "basal"], ["basal", "luma", "lumb"]),
        (["grade 2", "grade 10", "normal"], ["normal", "grade 2", "grade 10"]),
    ],
)
def test_classes_in_their_order(cells, names):
    kind = find_kind(cells)
    assert (kind.kind, kind.class_names) == ("classification", names)


def test_notes_name_the_positive_class_and_ordered_classes():
    assert find_kind(["b", "a", "a"]).notes == [
        "2 classes in this order: 'a' (2), 'b' (1); 'b' is the positive class (--class_names gives another order)"
    ]
    assert "--task ordinal" in find_kind(list("01234")).notes[1]
    assert len(find_kind(["x", "y", "z"]).notes) == 1


@pytest.mark.parametrize("cells", [["0.5", "1"], ["-3.5", "2", "nan"], [str(i) for i in range(21)], ["1e3", "2"]])
def test_numbers_are_a_regression(cells):
    assert find_kind(cells).kind == "regression"


def test_a_task_that_is_given():
    assert find_kind(list("0123"), "ordinal") == find_kind(list("3210"), "ordinal")
    assert find_kind(list("0123"), "ordinal").kind == "ordinal"
    assert find_kind(list("0123"), "regression").kind == "regression"
    assert find_kind(["3", "7", "9"], "classification").class_names == ["3", "7", "9"]
    assert find_kind(["lo", "hi", "mid"], "ordinal", ["lo", "mid", "hi"]).class_names == ["lo", "mid", "hi"]


def test_class_names_that_are_given():
    assert find_kind(["b", "a", "1"], class_names=["b", "a"]).class_names == ["b", "a"]
    assert (
        find_kind(["0", "1"], class_names=["good", "poor"])
        .notes[0]
        .startswith("2 classes in this order: 'good' (1), 'poor' (1); 'poor' is the positive class")
    )
    with pytest.raises(ValueError, match=r"`class_names` must name the classes of all labels: .* got 'c'"):
        find_kind(["b", "a", "c"], class_names=["b", "a"])
    assert "'none' (2)" in find_kind(["none", "mild", "none"], class_names=["none", "mild"]).notes[0]
    assert find_kind(["unknown", "a", "b"], class_names=["a", "b", "unknown"]).class_names[2] == "unknown"


@pytest.mark.parametrize(
    ("cells", "task", "match"),
    [
        (["", "NA"], None, "`label` must have values, got empty cells only"),
        (["a", "a", ""], None, "`label` must have at least 2 classes, got 'a' in all rows"),
        (["34", "61", "70"], None, "`task` must be given for whole numbers .*'34', '61', '70': --task classification"),
        (["a", "b", "not reported"], None, "`label` must be a class or an empty cell, got 'not reported'"),
        (["Tumor", "tumor", "normal"], None, "must have one spelling for each class, got 'Tumor', 'tumor'"),
        (["wild-type", "wild type", "mutated"], None, "must have one spelling .*, got 'wild type', 'wild-type'"),
        (
            ["no recurrence"] * 5 + ["recurrence"] * 4 + ["recurence"],
            None,
            "one spelling for each class, got 'recurence' in 1 of 10 rows and 'recurrence' in 4: .* by --class_names",
        ),
        (["Tumour"] + ["tumor"] * 9 + ["normal"] * 9, None, "got 'Tumour' in 1 of 19 rows and 'tumor' in 9"),
        (
            ["high grade"] * 8 + ["low grade", "high grde"],
            None,
            "got 'high grde' in 1 of 10 rows and 'high grade' in 8",
        ),
        (["0", "1", "tumor"], None, "must be numbers or names, got both, such as '0' and 'tumor'"),
        (["0.7", "low"], None, "must be numbers or names, got both"),
        (["none", "mild", "severe"], None, "`label` must be a class or an empty cell, got 'none', which may be either"),
        (["0,5", "1,25", "3,5"], None, "`label` must have decimal points, got '0,5'"),
        ([f"w{i}" for i in range(21)], None, "at most 20 classes, got 21 such as 'w0'"),
        (["a", "b", "c"], "ordinal", "`class_names` must be given for ordinal labels that are words"),
        (["0", "1"], "ordinal", "`label` must have at least 3 classes for ordinal, got '0', '1'"),
    ],
)
def test_what_cannot_be_decided_names_the_option(cells, task, match):
    with pytest.raises(ValueError, match=match):
        find_kind(cells, task)


@pytest.mark.parametrize(
    ("rare", "other"),
    [
        ("atypical", "typical"),
        ("Normal", "Abnormal"),
        ("noninvasive", "invasive"),
        ("stage III", "stage II"),
        ("grade 2", "grade 1"),
        ("class A", "class B"),
        ("LUAD", "LUSC"),
        ("T1a", "T1b"),
        ("carcinoma", "sarcoma"),
        ("-1", "1"),
    ],
)
def test_a_rare_class_is_no_misspelt_one(rare, other):
    assert set(find_kind([rare] + [other] * 20).class_names) == {rare, other}


def test_class_names_allow_a_rare_class_of_a_similar_name():
    cells = ["tumour"] + ["tumor"] * 9
    assert find_kind(cells, class_names=["tumor", "tumour"]).class_names == ["tumor", "tumour"]


def test_order_names_is_natural():
    assert order_names(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert order_names(["stage III", "stage II", "stage I"]) == ["stage I", "stage II", "stage III"]
