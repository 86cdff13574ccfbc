"""Association of site and label, by which a network can learn the site instead of the class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = ["describe_class_by_site", "describe_value_by_site"]

stats = optional_dependency("", "scipy.stats")
SIGNIFICANT = 0.05
FEW = 5  # expected patients of a cell below which the p-value is by permutation
SHUFFLES = 9999
RISK = "a network can learn the site instead"


def describe_class_by_site(sites: Sequence[str], labels: Sequence[str], name: str = "class") -> str:
    """Say that the classes of patients differ between sites, with the site and class that differ most, or return "".

    The test is Fisher's exact one for two sites and two classes, and the chi-squared test otherwise, whose p-value is
    by permutation if fewer than five patients are expected in a cell. Cramér's V is corrected for bias.

    Args:
        sites: site of each patient.
        labels: class of each patient.
        name: name of the label.

    Example:
        >>> describe_class_by_site(["A"] * 15 + ["B"] * 15, ["no"] * 10 + ["yes"] * 5 + ["no"] + ["yes"] * 14)
        "Site and class are associated (Cramér's V 0.60, Fisher's exact test, p = 0.002): site 'B' has 14 of 15 patients
        of class yes, the other sites 5 of 15: a network can learn the site instead."
    """
    rows, columns = sorted(set(sites)), sorted(set(labels))
    if len(rows) < 2 or len(columns) < 2:
        return ""
    counts = Counter(zip(sites, labels, strict=True))
    table = np.array([[counts[row, column] for column in columns] for row in rows])
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    test, p = _test(table, expected, sites, labels)
    is_split = bool((np.count_nonzero(table, axis=1) == 1).all() and len(sites) > len(rows))
    if p >= SIGNIFICANT and not is_split:
        return ""
    i, j = _most_associated(table, expected)
    site, size, rest = table[i, j], table[i].sum(), table[:, j].sum() - table[i, j]
    strength = f"Cramér's V {_cramers_v(table, expected):.2f}, {test}, {_p(p)}"
    return (
        f"Site and {name} are associated ({strength}): site {rows[i]!r} has {site} of {size} patients of class "
        f"{columns[j]}, the other sites {rest} of {table.sum() - size}: {RISK}."
    )


def describe_value_by_site(sites: Sequence[str], values: Sequence[float], name: str = "label") -> str:
    """Say that the values of patients differ between sites by the Kruskal-Wallis test, or return an empty string.

    Args:
        sites: site of each patient.
        values: value of each patient.
        name: name of the values.

    Example:
        >>> describe_value_by_site(["A"] * 10 + ["B"] * 10, range(20), "time")
        "The time differs between sites (Kruskal-Wallis test, p < 0.001): its median is 4.5 at site 'A' and 14.5 at
        site 'B': a network can learn the site instead."
    """
    array = np.asarray(values, dtype=float)
    groups = {site: array[[other == site for other in sites]] for site in sorted(set(sites))}
    if len(groups) < 2 or len(np.unique(array)) < 2:
        return ""
    p = float(stats.kruskal(*groups.values()).pvalue)
    if not p < SIGNIFICANT:
        return ""
    medians = {site: float(np.median(group)) for site, group in groups.items()}
    low, high = min(medians, key=lambda site: medians[site]), max(medians, key=lambda site: medians[site])
    return (
        f"The {name} differs between sites (Kruskal-Wallis test, {_p(p)}): its median is {medians[low]:.3g} at site "
        f"{low!r} and {medians[high]:.3g} at site {high!r}: {RISK}."
    )


def _test(
    table: NDArray[np.int64], expected: NDArray[np.float64], sites: Sequence[str], labels: Sequence[str]
) -> tuple[str, float]:
    if table.shape == (2, 2):
        return "Fisher's exact test", float(stats.fisher_exact(table)[1])
    if expected.min() >= FEW:
        return "chi-squared test", float(stats.chi2_contingency(table, correction=False)[1])
    rows, columns = (np.unique(names, return_inverse=True)[1] for names in (sites, labels))
    observed = _chi_squared(table, expected)
    rng, size = np.random.default_rng(0), table.shape[0] * table.shape[1]
    higher = 0
    for _ in range(SHUFFLES):
        cells = np.bincount(rows * table.shape[1] + rng.permutation(columns), minlength=size)
        higher += _chi_squared(cells.reshape(table.shape), expected) >= observed - 1e-9
    return "permutation test", (higher + 1) / (SHUFFLES + 1)


def _most_associated(table: NDArray[np.int64], expected: NDArray[np.float64]) -> tuple[int, int]:
    """Return site and class with the largest adjusted residual, of equal ones that of the purest site."""
    shares = [1 - table.sum(axis) / table.sum() for axis in (1, 0)]
    residuals = np.round((table - expected) / np.sqrt(expected * np.outer(*shares)), 6)
    purity = table / table.sum(1, keepdims=True)
    cells = np.ndindex(*table.shape)
    i, j = max(cells, key=lambda cell: (residuals[cell], purity[cell]))
    return i, j


def _chi_squared(table: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    return float(((table - expected) ** 2 / expected).sum())


def _cramers_v(table: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    total, (rows, columns) = int(table.sum()), table.shape
    phi2 = max(0.0, _chi_squared(table, expected) / total - (rows - 1) * (columns - 1) / (total - 1))
    least = min(size - (size - 1) ** 2 / (total - 1) for size in (rows, columns)) - 1
    return math.sqrt(phi2 / least) if least > 0 else 0.0


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
