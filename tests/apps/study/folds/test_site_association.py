"""Tests of the association of site and label."""

import numpy as np
import pytest
from scipy import stats

from monai_mil_ext.apps.study.folds.site_association import describe_class_by_site, describe_value_by_site


def columns(table):
    """Return sites and classes of a table of counts by site."""
    cells = [(site, label) for site, row in table.items() for label, count in row.items() for _ in range(count)]
    return [site for site, _ in cells], [label for _, label in cells]


@pytest.mark.parametrize(
    ("table", "test", "p"),
    [
        ({"A": {"x": 10, "y": 5}, "B": {"x": 1, "y": 14}}, "Fisher's exact test", "p = 0.002"),
        ({"A": {"x": 30, "y": 10}, "B": {"x": 8, "y": 32}, "C": {"x": 20, "y": 20}}, "chi-squared test", "p < 0.001"),
        ({"A": {"x": 4}, "B": {"y": 5}, "C": {"x": 2, "y": 2}}, "permutation test", None),
    ],
)
def test_the_test_fits_the_table(table, test, p):
    note = describe_class_by_site(*columns(table))
    assert f", {test}, {p or 'p = 0.0'}" in note
    assert "site 'B' has" in note


def test_the_permutation_test_agrees_with_fishers():
    table = {"A": {"x": 6}, "B": {"x": 3, "y": 3}, "C": {"y": 3, "x": 3}}
    sites, labels = columns(table)
    note = describe_class_by_site([*sites, "D"], [*labels, "y"])
    exact = stats.fisher_exact([[6, 0], [3, 3], [3, 3], [0, 1]])
    assert (exact.pvalue < 0.05) == bool(note)


def test_random_labels_are_rarely_associated():
    rng = np.random.default_rng(0)
    notes = [describe_class_by_site(rng.choice(list("AB"), 40), rng.choice(list("xy"), 40)) for _ in range(200)]
    assert sum(map(bool, notes)) < 16


@pytest.mark.parametrize(
    "table", [{}, {"A": {"x": 5, "y": 5}}, {"A": {"x": 5}, "B": {"x": 5}}, {"A": {"x": 1}, "B": {"y": 1}}]
)
def test_nothing_is_said_without_two_sites_and_classes(table):
    assert describe_class_by_site(*columns(table)) == ""


def test_few_patients_are_named_if_the_site_gives_the_class_away():
    note = describe_class_by_site(*columns({"A": {"x": 2}, "B": {"y": 2}}))
    assert "Fisher's exact test, p = 0.333): site 'A' has 2 of 2 patients of class x, the other sites 0 of 2" in note


def test_values_by_site():
    assert describe_value_by_site(list("AABB") * 10, [1.0, 2.0] * 20) == ""
    assert describe_value_by_site(["A"] * 9, range(9)) == ""
    assert describe_value_by_site(["A", "B"] * 9, [1.0] * 18) == ""
    note = describe_value_by_site(["A"] * 9 + ["B"] * 9, range(18))
    assert "The label differs between sites" in note
    assert "its median is 4 at site 'A' and 13 at site 'B'" in note
