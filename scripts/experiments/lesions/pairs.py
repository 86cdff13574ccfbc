"""Paired differences of two methods on the same test scans, from the answers that the benchmark has kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.metrics import paired_bootstrap

from .measures import statistic

__all__ = ["PAIRS", "compare", "pair_rows"]

Row = Mapping[str, Any]
SUPERVISED = "slice-supervised"
PAIRS = {  # by name of the result: methods a and b of the differences a - b
    "kernel": [("ABMIL + KG", "ABMIL + NG"), ("ABMIL + KG", "ABMIL")],
    "chain": [("MarkovMIL", "WindowMIL"), ("WindowMIL", SUPERVISED), ("MarkovMIL", SUPERVISED)],
}
VALUES = ("bag_auroc", "instance_auroc", "instance_ap")


def compare(
    a: Mapping[int, Sequence[Row]], b: Mapping[int, Sequence[Row]], num_samples: int = 1000
) -> dict[str, dict[str, float]]:
    """Return the differences a - b of the values of scans and slices, with 95 % intervals by drawing scans.

    Args:
        a: rows of one method by seed.
        b: rows of the other for the same scans.
        num_samples: number of bootstrap samples.

    Raises:
        ValueError: when the scans differ.
    """
    flat_a, flat_b = ([(seed, row) for seed, part in rows.items() for row in part] for rows in (a, b))
    cases = [[(seed, row["case_id"]) for seed, row in flat] for flat in (flat_a, flat_b)]
    if cases[0] != cases[1]:
        raise ValueError(f"`b` must be of the scans of `a`, got {len(cases[1])} and {len(cases[0])}, or others.")
    found: dict[str, dict[str, float]] = paired_bootstrap(flat_a, flat_b, statistic, num_samples=num_samples)
    return {name: found[name] for name in VALUES}


def pair_rows(
    rows: Mapping[str, Mapping[int, Sequence[Row]]],
    pairs: Sequence[tuple[str, str]],
    name: str,
    num_samples: int = 1000,
) -> list[dict[str, Any]]:
    """Return a row of a table for each pair of methods.

    Args:
        rows: rows of each method by seed.
        pairs: names of methods a and b.
        name: what the test is, for the names of the rows.
        num_samples: number of bootstrap samples.
    """
    table = []
    for a, b in pairs:
        found = compare(rows[a], rows[b], num_samples)
        values = {value: of["difference"] for value, of in found.items()}
        limits = {value: [of["low"], of["high"]] for value, of in found.items()}
        table.append({"name": f"{name}: {a} - {b}", "values": values, "interval_95": limits, "pair": [a, b]})
    return table
