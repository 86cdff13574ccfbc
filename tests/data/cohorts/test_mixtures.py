"""Tests of mixtures of encoders and resolutions, and of their confounding with the label."""

import pytest
import torch

from monai_mil_ext.data.cohorts.mixtures import class_labels, confounding, merge_close, mixture, mixture_issues
from tests.data.cohort_files import texts


def spread(*groups):
    """Return the values and labels of groups (count, value, label)."""
    rows = [(value, label) for count, value, label in groups for _ in range(count)]
    return [value for value, _ in rows], [label for _, label in rows]


def test_mixture_counts_each_value():
    assert mixture("encoder", ["a", None, "a"]) == ""
    assert mixture("encoder", ["b", "a", None, "a"]) == (
        "encoder must be the same in all files, got 'a' in 2, 'b' in 1"
    )
    many = mixture("resolution", [str(i) for i in range(8)], is_error=False)
    assert many.startswith("resolution is not the same in all files: '0' in 1, '1' in 1")
    assert many.endswith("'4' in 1, 3 more")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            [(3, "uni_v1", "0"), (3, "gigapath", "1")],
            "confounded: class 0 is all uni_v1, class 1 all gigapath",
        ),
        (
            [(1, "uni_v1", "0"), (1, "gigapath", "1")],
            "confounded: class 0 is all uni_v1, class 1 all gigapath",
        ),
        (
            [(3, None, "0"), (4, "gigapath", "1")],
            "confounded: class 0 is all unknown, class 1 all gigapath",
        ),
        (
            [(6, "a", "0"), (6, "b", "0"), (9, "c", "1")],
            "confounded: class 0 is 6 a and 6 b, class 1 all c",
        ),
        (
            [(5, "a", "2"), (5, "b", "10"), (5, "b", "9")],
            "partly confounded (Cramér's V 0.96): class 2 is all a, class 9 all b, class 10 all b",
        ),
        (
            [(15, "uni", "0"), (7, "uni", "1"), (8, "gigapath", "1")],
            "partly confounded (Cramér's V 0.58): class 0 is all uni, class 1 8 gigapath and 7 uni",
        ),
    ],
    ids=[
        "each its own",
        "two files",
        "one not stated",
        "two sites in a class",
        "two of three classes",
        "one class only",
    ],
)
def test_confounding_says_which_class_has_what(groups, expected):
    risk = "a network can separate encoders instead of disease"
    assert confounding("encoder", *spread(*groups)) == f"encoder and label are {expected}; {risk}"


@pytest.mark.parametrize(
    "groups",
    [
        [(8, "a", "0"), (8, "a", "1"), (4, "b", "0"), (4, "b", "1")],
        [(8, "a", "0"), (8, "a", "1")],
        [(8, "a", "0"), (8, "b", "0")],
        [(8, "a", "0"), (8, "b", None)],
        [(1, str(i), str(i % 2)) for i in range(30)],
        [(10, "a", "0"), (8, "a", "1"), (2, "b", "0"), (4, "b", "1")],
    ],
    ids=["even", "one value", "one class", "no label", "every file its own value", "by chance"],
)
def test_confounding_is_silent_without_association(groups):
    assert confounding("encoder", *spread(*groups)) == ""


def test_confounding_is_that_of_scipy_without_correction():
    """The corrected V is computed by hand from Pearson's statistic of SciPy."""
    from scipy.stats import chi2_contingency

    phi2 = chi2_contingency([[12, 3], [2, 13]], correction=False).statistic / 30
    expected = ((phi2 - 1 / 29) / (1 - 1 / 29)) ** 0.5
    text = confounding("encoder", *spread((12, "a", "0"), (3, "a", "1"), (2, "b", "0"), (13, "b", "1")))
    assert f"Cramér's V {expected:.2f})" in text


def test_merge_close_takes_one_text_for_numbers_that_differ_little():
    values = [0.25, 1.0, 0.2325, None, 0.2501]
    assert merge_close(values, ["a", "b", "c", None, "d"], 0.1) == ["c", "b", "c", None, "c"]
    assert merge_close([1.0, 1.09, 1.18], ["a", "b", "c"], 0.1) == ["a", "a", "c"]


def test_class_labels_of_each_kind_of_label():
    assert class_labels([{"label": 0}, {}]) == {"label": ["0", None]}
    assert class_labels([{"label": 1}], ["low", "high"]) == {"label": ["'high'"]}
    assert class_labels([{"label": 1.0}, {"label": 2.0}, {"label": 3.0}]) == {
        "label": ["up to 2", "up to 2", "above 2"]
    }
    several = [{"label": torch.tensor([1.0, float("nan")])}, {"label": torch.tensor([0.0, 1.0])}]
    assert class_labels(several) == {"label 0": ["1", "0"], "label 1": [None, "1"]}
    assert class_labels([{"time": 2.0, "event": 1}]) == {"event": ["1"]}
    assert class_labels([{}]) == {}


def test_mixture_issues_are_errors_or_notes():
    values, labels = spread((3, "a", "0"), (3, "b", "1"))
    errors, notes = mixture_issues("encoder", [*values, None], {"label": [*labels, "0"]}, True)
    assert [text.split(" ")[1] for text in texts(errors)] == ["encoder", "encoder"]
    assert texts(notes) == ["encoder: 1 of 7 files does not state the encoder: not checked"]
    errors, notes = mixture_issues("encoder", values, {"label": labels}, False)
    assert (errors, len(notes)) == ([], 2)
    errors, notes = mixture_issues("encoder", ["a", "a", None, None], {"label": ["0", "0", "1", "1"]}, True)
    assert (errors, len(notes)) == ([], 2)
    assert mixture_issues("encoder", [None, None], {"label": ["0", "1"]}, True) == ([], [])
