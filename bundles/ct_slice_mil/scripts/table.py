"""What runs with several seeds found on their test parts, as numbers and as text."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.metrics import compare_over_seeds, localization_skill, seed_summary
from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["SHOWN", "cell", "evaluation", "read_rows", "table_text"]

SHOWN = {
    "bag_auroc": "scan AUROC",
    "bag_auprc": "scan AUPRC",
    "instance_auroc": "slice AUROC",
    "instance_ap": "slice AP",
    "instance_skill": "skill",
    "pointing_game": "pointing game",
}
NAMES = ("instance_auroc", "instance_ap")
Row = Mapping[str, Any]


def read_rows(folder: Path) -> dict[str, Any]:
    """What ``BagResultsSaver`` wrote: the ``values`` of all bags, and a row of each in ``bags``."""
    values = json.loads((folder / "report.json").read_text())["values"]
    with (folder / "bags.csv").open(newline="") as lines:
        bags = [
            {**row, "label": int(row["label"]), **{name: float(row[name]) for name in NAMES}}
            for row in csv.DictReader(lines)
        ]
    return {"values": {name: math.nan if value is None else value for name, value in values.items()}, "bags": bags}


def evaluation(
    found: Mapping[str, Mapping[int, Mapping[str, Any]]],
    uses_slice_labels: Mapping[str, bool],
    pairs: Sequence[tuple[str, str]],
    num_samples: int = 1000,
) -> dict[str, Any]:
    """Rows of the table, the centre baseline, and how pairs of methods differ.

    Args:
        found: :py:func:`read_rows` of each method and seed.
        uses_slice_labels: whether a method's training does.
        pairs: of methods to compare, over the positive test scans of all seeds.
        num_samples: of the bootstrap.
    """
    rows = []
    for name, seeds in found.items():
        summary = seed_summary({seed: one["values"] for seed, one in seeds.items()})
        rows.append({"name": name, "uses_slice_labels": uses_slice_labels[name], **summary})
    comparisons = [
        {
            "a": a,
            "b": b,
            **compare_over_seeds(*({s: r["bags"] for s, r in found[m].items()} for m in (a, b)), NAMES, num_samples),
        }
        for a, b in pairs
    ]
    return {"use": RESEARCH_USE, "rows": [*rows, _center(rows)], "comparisons": comparisons}


def _center(rows: Sequence[Row]) -> dict[str, Any]:
    """The centre of the scan on the same test parts, of a method that answers whole scans."""
    whole = next((row for row in rows if row["name"] != "bag-level oracle"), rows[0])
    seeds = {
        seed: {
            "instance_auroc": values["center_auroc"],
            "instance_ap": values["center_ap"],
            "instance_skill": localization_skill(values["center_auroc"], values["center_auroc"]),
        }
        for seed, values in whole["seeds"].items()
    }
    return {"name": "centre", "uses_slice_labels": False, **seed_summary(seeds)}


def table_text(result: Mapping[str, Any]) -> str:
    """Markdown: a row a method, a row a seed below it, then the comparisons and what was done."""
    heads = ["method", "seed", *SHOWN.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|--:" * len(SHOWN) + "|"]
    for row in result["rows"]:
        name = row["name"] + (" (**uses slice labels**)" if row["uses_slice_labels"] else "")
        cells = [cell(row["values"].get(key), row["sd"].get(key)) for key in SHOWN]
        lines.append("| " + " | ".join([name, "mean ± sd", *cells]) + " |")
        for seed, values in row["seeds"].items():
            lines.append("| " + " | ".join(["", str(seed), *(cell(values.get(key)) for key in SHOWN)]) + " |")
    return "\n".join([*lines, "", *map(_difference, result["comparisons"]), "", _note(result)])


def _difference(found: Mapping[str, Any]) -> str:
    one = found["instance_auroc"]
    over = f"{found['over']['num_bags']} positive test scans of {found['over']['num_patients']} patients"
    return (
        f"{found['a']} less {found['b']}, slice AUROC: {one['difference']:+.3f} "
        f"[{one['low']:+.3f}, {one['high']:+.3f}], p = {one['p']:.3f}; paired bootstrap of patients over {over}."
    )


def _note(result: Mapping[str, Any]) -> str:
    tried = ", ".join(f"{name} {count}" for name, count in result.get("settings_tried", {}).items())
    done = [f"{key}: {result[key]}." for key in ("protocol", "selection", "split") if key in result]
    sd = "sd: sample (n - 1) of scan values, population (n) of slice values."
    return " ".join([sd, *done, *([f"settings tried a seed: {tried}."] if tried else []), f"{RESEARCH_USE}."])


def cell(value: float | None, sd: float | None = None) -> str:
    """A value with its sd, three digits each; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3f}" + (f" ± {sd:.3f}" if sd is not None and math.isfinite(sd) else "")
