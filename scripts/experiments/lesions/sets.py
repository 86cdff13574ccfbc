"""Coverage and size of sets of slices with a guarantee, from the answers that the benchmark has kept.

A case is a scan with a lesion and the network of its seed. The cases of all seeds are split into halves together: the
levels of the sets are ranks, which mean the same for every network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from experiments.conformal import Cases, size_ratio, split_means
from monai_mil_ext.metrics import ConformalInstances

__all__ = ["HEADS", "METHODS", "SHIFT_HEADS", "labeled_cases", "set_rows", "shift_rows"]

Row = Mapping[str, Any]
METHODS = ("center", "ABMIL", "ABMIL + NG", "QG-MIL", "WindowMIL", "MarkovMIL", "slice-supervised")
COMPARED = ("ABMIL", "ABMIL + NG")
ALPHAS = {"90": 0.1, "95": 0.05}
HEADS = {
    **{
        f"{name}_{level}": f"{level} %: {head}"
        for level in ALPHAS
        for name, head in (
            ("coverage", "coverage"),
            ("not_below", "splits not below the band"),
            ("size", "slices"),
            ("abstained", "no set"),
            ("ratio_ABMIL", "slices of ABMIL / these"),
            ("ratio_ABMIL + NG", "slices of ABMIL + NG / these"),
        )
    },
    "size_all": "90 %: slices for the whole lesion",
}
SHIFT_HEADS = {
    f"{name}_{target}": f"{what}: {head}"
    for target, what in (("any", "one slice"), ("all", "all slices"))
    for name, head in (("coverage", "coverage"), ("shifted", "shift reported"))
}


def labeled_cases(rows: Mapping[int, Sequence[Row]]) -> Cases:
    """Return scores and labels of the slices of all scans with a lesion."""
    kept = [row for part in rows.values() for row in part if row["label"]]
    scores, labels = ([torch.tensor(row[name]) for row in kept] for name in ("scores", "instance_label"))
    return [values.double() for values in scores], labels


def set_rows(
    rows: Mapping[str, Mapping[int, Sequence[Row]]], splits: int = 200, num_samples: int = 1000
) -> list[dict[str, Any]]:
    """Return a row of the table for each method.

    ``ratio_*`` say how many times as large the set of another method is, with a 95 % interval by drawing scans.
    """
    cases = {name: labeled_cases(rows[name]) for name in METHODS if name in rows}
    table = []
    for name, own in cases.items():
        row: dict[str, Any] = {"name": name, "values": {}, "interval_95": {}, "bands": {}, "expected": {}}
        for level, alpha in ALPHAS.items():
            found = split_means(own, ConformalInstances(alpha), splits)
            row["values"] |= {f"{key}_{level}": found[key] for key in ("coverage", "not_below", "size")}
            row["values"][f"abstained_{level}"] = 1 - found["answered"]
            row["bands"][level], row["expected"][level] = found["band"], found["expected"]
            for other in [other for other in COMPARED if other in cases and other != name]:
                ratio, *limits = size_ratio(cases[other], own, ConformalInstances(alpha), num_samples)
                row["values"][f"ratio_{other}_{level}"] = ratio
                row["interval_95"][f"ratio_{other}_{level}"] = limits
        row["values"]["size_all"] = split_means(own, ConformalInstances(0.1, "all"), splits)["size"]
        table.append(row)
    return table


def shift_rows(
    rows: Mapping[str, Mapping[int, Sequence[Row]]],
    others: Mapping[str, Mapping[str, Mapping[int, Sequence[Row]]]],
    splits: int = 200,
) -> list[dict[str, Any]]:
    """Return a row for each method and other test set, to which sets of ``rows`` are applied.

    Args:
        rows: rows of each method by seed, which calibrate.
        others: rows on other test sets, by the name of the set, with as many scans with lesions.
        splits: number of splits.
    """
    table = []
    for test, of_test in others.items():
        for name in [name for name in METHODS if name in rows]:
            values: dict[str, float] = {}
            for target in ("any", "all"):
                sets = ConformalInstances(0.1, target)
                found = split_means(labeled_cases(rows[name]), sets, splits, others=labeled_cases(of_test[name]))
                values |= {f"{key}_{target}": found[key] for key in ("coverage", "shifted")}
            table.append({"name": f"{test}: {name}", "values": values})
    return table
