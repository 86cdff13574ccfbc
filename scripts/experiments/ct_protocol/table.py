"""Table of test results over several seeds, as numbers and as Markdown."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.metrics import compare_over_seeds, localization_skill, seed_summary
from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["compare_methods", "format_cell", "format_table", "read_rows", "shown_values"]

SHOWN = {
    "bag_auroc": "bag AUROC",
    "bag_auprc": "bag AUPRC",
    "instance_auroc": "slice AUROC",
    "instance_ap": "slice AP",
    "instance_skill": "skill",
    "pointing_game": "pointing game",
}
NAMES = ("instance_auroc", "instance_ap")
Row = Mapping[str, Any]


def read_rows(folder: Path) -> dict[str, Any]:
    """Read the files of ``BagResultsSaver``: ``values`` and ``interval_95`` of all bags, and a row per bag in ``bags``.

    Without slice labels there are no values of slices, and those of a bag are NaN.
    """
    report = json.loads((folder / "report.json").read_text())
    with (folder / "bags.csv").open(newline="") as lines:
        bags = [
            {**row, "label": int(row["label"]), **{name: float(row.get(name) or "nan") for name in NAMES}}
            for row in csv.DictReader(lines)
        ]
    values = {name: math.nan if value is None else value for name, value in report["values"].items()}
    return {"values": values, "interval_95": report["interval_95"], "bags": bags}


def compare_methods(
    results: Mapping[str, Mapping[Any, Mapping[str, Any]]],
    uses_slice_labels: Mapping[str, bool],
    pairs: Sequence[tuple[str, str]],
    num_samples: int = 1000,
) -> dict[str, Any]:
    """Return the rows of the table, the baseline of the center of the scan, and differences of pairs of methods.

    Without slice labels there is neither a baseline nor a difference.

    Args:
        results: result of :py:func:`read_rows` for each method and seed.
        uses_slice_labels: whether the training of a method uses slice labels.
        pairs: pairs of methods to compare, over the positive test scans of all seeds.
        num_samples: number of bootstrap samples.
    """
    rows = []
    for name, seeds in results.items():
        summary = seed_summary({seed: result["values"] for seed, result in seeds.items()})
        interval = next(iter(seeds.values())).get("interval_95") if len(seeds) == 1 else None
        rows.append({"name": name, "uses_slice_labels": uses_slice_labels[name], **summary, "interval_95": interval})
    localized = [row for row in rows if math.isfinite(row["values"].get("center_auroc", math.nan))]
    comparisons = []
    for a, b in pairs if localized else []:
        first, second = ({seed: result["bags"] for seed, result in results[name].items()} for name in (a, b))
        comparisons.append({"a": a, "b": b, **compare_over_seeds(first, second, NAMES, num_samples)})
    center = [_center_row(localized)] if localized else []
    return {"use": RESEARCH_USE, "rows": [*rows, *center], "comparisons": comparisons}


def _center_row(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the baseline of the center of the scan on the same test parts, from a method that reads whole scans."""
    whole = next((row for row in rows if row["name"] != "bag-level oracle"), rows[0])
    seeds = {
        seed: {
            "instance_auroc": values["center_auroc"],
            "instance_ap": values["center_ap"],
            "instance_skill": localization_skill(values["center_auroc"], values["center_auroc"]),
        }
        for seed, values in whole["seeds"].items()
    }
    return {"name": "center", "uses_slice_labels": False, **seed_summary(seeds)}


def shown_values(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of the table, by the names of their values: those that a row has."""
    return {key: head for key, head in SHOWN.items() if any(key in row["values"] for row in result["rows"])}


def format_table(result: Mapping[str, Any]) -> str:
    """Format as Markdown: a row per method, followed by a row per seed, then the comparisons and the notes."""
    shown = shown_values(result)
    heads = ["method", "seed", *shown.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|--:" * len(shown) + "|"]
    for row in result["rows"]:
        name = row["name"] + (" (**uses slice labels**)" if row["uses_slice_labels"] else "")
        cells = [format_cell(row["values"].get(key), row["sd"].get(key)) for key in shown]
        lines.append("| " + " | ".join([name, "mean ± sd", *cells]) + " |")
        for seed, values in row["seeds"].items():
            lines.append("| " + " | ".join(["", str(seed), *(format_cell(values.get(key)) for key in shown)]) + " |")
    return "\n".join([*lines, "", *map(_format_difference, result["comparisons"]), "", _format_note(result)])


def _format_difference(comparison: Mapping[str, Any]) -> str:
    auroc = comparison["instance_auroc"]
    over = f"{comparison['over']['num_bags']} positive test scans of {comparison['over']['num_patients']} patients"
    return (
        f"{comparison['a']} less {comparison['b']}, slice AUROC: {auroc['difference']:+.3f} "
        f"[{auroc['low']:+.3f}, {auroc['high']:+.3f}], p = {auroc['p']:.3f}; paired bootstrap of patients over {over}."
    )


def _format_note(result: Mapping[str, Any]) -> str:
    tried = ", ".join(f"{name} {count}" for name, count in result.get("settings_tried", {}).items())
    facts = [f"{key}: {result[key]}." for key in ("protocol", "selection", "split") if key in result]
    sd = "sd: sample (n - 1) of scan values, population (n) of slice values."
    return " ".join([sd, *facts, *([f"settings tried a seed: {tried}."] if tried else []), f"{RESEARCH_USE}."])


def format_cell(value: float | None, sd: float | None = None, interval: Sequence[float | None] | None = None) -> str:
    """Format a value with its interval, if given, or its sd, with three digits each; a missing value is a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    if interval is not None:
        return f"{value:.3f} [{format_cell(interval[0])}, {format_cell(interval[1])}]"
    return f"{value:.3f}" + (f" ± {sd:.3f}" if sd is not None and math.isfinite(sd) else "")
