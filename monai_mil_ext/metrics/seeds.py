"""Summary and comparison of training runs with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from .bag_classification import BAG_VALUES
from .bootstrap import paired_bootstrap

__all__ = ["compare_over_seeds", "seed_summary"]


def seed_summary(seeds: Mapping[Hashable, Mapping[str, float]]) -> dict[str, Any]:
    """Compute mean and standard deviation of each value over seeds.

    As in published tables, the standard deviation of bag metrics (:py:func:`bag_values`) is the ``"sample"`` one, which
    divides by the number of seeds minus one, and that of all other (localization) metrics the ``"population"`` one. If
    a value is NaN for one seed, its mean and standard deviation are NaN, so that no mean over fewer seeds passes for a
    mean over all.

    Args:
        seeds: values by name for each seed.

    Returns:
        ``values``, ``sd`` and ``sd_kind`` by name, and ``seeds``, the values of each seed. The standard deviation of a
        single seed is NaN.

    Raises:
        ValueError: if there is no seed, or seeds have different names of values.

    Example:
        >>> summary = seed_summary({seed: {"bag_auroc": v, "instance_auroc": v} for seed, v in ((1, 0.7), (2, 0.9))})
        >>> {name: (summary["sd_kind"][name], round(sd, 3)) for name, sd in summary["sd"].items()}
        {'bag_auroc': ('sample', 0.141), 'instance_auroc': ('population', 0.1)}
    """
    if not seeds:
        raise ValueError("`seeds` must have the values of at least one seed, got none.")
    names = list(next(iter(seeds.values())))
    for seed, values in seeds.items():
        if set(values) != set(names):
            raise ValueError(f"`seeds` must all have the values {sorted(names)}, got {sorted(values)} of seed {seed}.")
    columns = {name: np.asarray([values[name] for values in seeds.values()], dtype=float) for name in names}
    kinds = {name: "sample" if name in BAG_VALUES else "population" for name in names}
    return {
        "values": {name: float(column.mean()) for name, column in columns.items()},
        "sd": {name: _sd(column, kinds[name]) for name, column in columns.items()},
        "sd_kind": kinds,
        "seeds": {seed: dict(values) for seed, values in seeds.items()},
    }


def compare_over_seeds(
    rows_a: Mapping[Hashable, Sequence[Mapping[str, Any]]],
    rows_b: Mapping[Hashable, Sequence[Mapping[str, Any]]],
    names: Sequence[str] = ("instance_auroc", "instance_ap"),
    num_samples: int = 1000,
) -> dict[str, dict[str, float]]:
    """Compare the localization of two methods by :py:func:`paired_bootstrap` over the positive bags of all seeds.

    Bags without a value (negative ones and those whose instances have only one label) are excluded. The statistic is
    the mean over seeds of the mean over bags. Patients are drawn; a patient in the test part of several seeds is drawn
    with all of their bags.

    Args:
        rows_a: rows of one method for each seed, one per bag, with ``case_id``, ``patient`` and ``names``.
        rows_b: rows of the other method for the same bags.
        names: names of the values to compare.
        num_samples: number of bootstrap samples.

    Returns:
        ``difference`` a - b, ``low``, ``high`` and ``p`` of each value, and under ``"over"`` the ``num_bags`` and
        ``num_patients`` of the comparison.

    Raises:
        ValueError: if seeds or bags of the two differ, or no bag has a value.

    Example:
        >>> row = {"case_id": "a", "patient": "p", "instance_auroc": 0.75}
        >>> better = {1: [row | {"instance_auroc": 1.0}]}
        >>> compare_over_seeds(better, {1: [row]}, ["instance_auroc"])["instance_auroc"]["difference"]
        0.25
    """
    a, b = _flat(rows_a, names), _flat(rows_b, names)
    if [key for key, _ in a] != [key for key, _ in b]:
        raise ValueError(f"`rows_b` must be of the same bags as `rows_a`, got {len(b)} and {len(a)}, or other names.")
    if not a:
        raise ValueError("`rows_a` must have a bag with values, got none.")
    patients = [patient for (_, _, patient), _ in a]
    by_seed_a, by_seed_b = ([(key[0], row) for key, row in rows] for rows in (a, b))
    comparison = paired_bootstrap(by_seed_a, by_seed_b, _mean_over_seeds(names), patients, num_samples)
    return {**comparison, "over": {"num_bags": len(a), "num_patients": len(set(patients))}}


def _flat(
    rows: Mapping[Hashable, Sequence[Mapping[str, Any]]], names: Sequence[str]
) -> list[tuple[tuple[Hashable, str, str], Mapping[str, Any]]]:
    """Return the bags that have all values, keyed and sorted by seed, case and patient."""
    keyed = [
        ((seed, str(row["case_id"]), str(row["patient"])), row)
        for seed, seed_rows in rows.items()
        for row in seed_rows
        if all(np.isfinite(row[name]) for name in names)
    ]
    return sorted(keyed, key=lambda item: tuple(map(str, item[0])))


def _mean_over_seeds(
    names: Sequence[str],
) -> Callable[[Sequence[tuple[Hashable, Mapping[str, Any]]]], dict[str, float]]:
    def statistic(rows: Sequence[tuple[Hashable, Mapping[str, Any]]]) -> dict[str, float]:
        by_seed: dict[Hashable, list[Mapping[str, Any]]] = {}
        for seed, row in rows:
            by_seed.setdefault(seed, []).append(row)
        return {
            name: float(np.mean([np.mean([row[name] for row in part]) for part in by_seed.values()])) for name in names
        }

    return statistic


def _sd(values: np.ndarray[Any, Any], kind: str) -> float:
    return float(values.std(ddof=int(kind == "sample"))) if len(values) > 1 else float("nan")
