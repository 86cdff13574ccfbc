"""Runs with several seeds: their mean, their spread and what tells two methods apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from .bag_classification import BAG_VALUES
from .paired import paired_bootstrap

__all__ = ["compare_over_seeds", "seed_summary"]


def seed_summary(seeds: Mapping[Hashable, Mapping[str, float]]) -> dict[str, Any]:
    """Mean and sd of each value over seeds; the values of each seed stay beside them.

    As published tables have it, the sd of values of bags (:py:func:`bag_values`) is the ``"sample"`` sd, which divides
    by the number of seeds less one, and that of all others, localisation, the ``"population"`` sd. A value that a
    seed doesn't have (NaN) leaves mean and sd NaN: a mean over fewer seeds would look like one over all.

    Args:
        seeds: values by name, of each seed.

    Returns:
        ``values``, ``sd``, ``sd_kind`` by name of the value, and ``seeds``. The sd of one seed is NaN.

    Raises:
        ValueError: when there is no seed, or seeds differ in their values.

    Example:
        >>> found = seed_summary({seed: {"bag_auroc": v, "instance_auroc": v} for seed, v in ((1, 0.7), (2, 0.9))})
        >>> {name: (found["sd_kind"][name], round(sd, 3)) for name, sd in found["sd"].items()}
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
    """Whether two methods localise differently: :py:func:`paired_bootstrap` over the positive bags of all seeds.

    Bags without a value (negative ones, and those whose instances are all alike) are left out. The statistic is the
    mean over seeds of the mean over bags. Patients are drawn, and one who is in the test part of several seeds is drawn
    with all bags there.

    Args:
        rows_a: of one method: of each seed a row a bag, with ``case_id``, ``patient`` and ``names``.
        rows_b: of the other, the same bags.
        names: of the values to compare.
        num_samples: of the bootstrap.

    Returns:
        ``difference`` a - b, ``low``, ``high`` and ``p`` of each value, and ``num_bags`` and ``num_patients`` that it
        rests on under ``"over"``.

    Raises:
        ValueError: when seeds or bags of the two differ, or no bag has a value.

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
    own, other = ([(key[0], row) for key, row in rows] for rows in (a, b))
    found = paired_bootstrap(own, other, _mean_over_seeds(names), patients, num_samples)
    return {**found, "over": {"num_bags": len(a), "num_patients": len(set(patients))}}


def _flat(
    rows: Mapping[Hashable, Sequence[Mapping[str, Any]]], names: Sequence[str]
) -> list[tuple[tuple[Hashable, str, str], Mapping[str, Any]]]:
    """Bags that have all values, by seed, case and patient, in one order."""
    keyed = [
        ((seed, str(row["case_id"]), str(row["patient"])), row)
        for seed, own in rows.items()
        for row in own
        if all(np.isfinite(row[name]) for name in names)
    ]
    return sorted(keyed, key=lambda one: tuple(map(str, one[0])))


def _mean_over_seeds(
    names: Sequence[str],
) -> Callable[[Sequence[tuple[Hashable, Mapping[str, Any]]]], dict[str, float]]:
    def statistic(rows: Sequence[tuple[Hashable, Mapping[str, Any]]]) -> dict[str, float]:
        by_seed: dict[Hashable, list[Mapping[str, Any]]] = {}
        for seed, row in rows:
            by_seed.setdefault(seed, []).append(row)
        return {
            name: float(np.mean([np.mean([row[name] for row in own]) for own in by_seed.values()])) for name in names
        }

    return statistic


def _sd(values: np.ndarray[Any, Any], kind: str) -> float:
    return float(values.std(ddof=int(kind == "sample"))) if len(values) > 1 else float("nan")
