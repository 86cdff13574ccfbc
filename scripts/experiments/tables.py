"""Tables of the pages, generated from measured results so that no number is typed by hand.

``scripts/results`` writes the tables of docs/results/*.json to README.md and docs; ``--check`` only reports whether
they differ; ``--show FOLDER ...`` prints the reports of several evaluations in columns, and ``--benchmark`` the speed
table.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .front import front_table, picture_caption
from .profile_table import profile_table
from .speed_table import benchmark_table
from .time_table import time_table
from .verdicts import verdict_table

__all__ = ["benchmark_table", "fill", "main", "patient_table", "result_table", "show_reports"]

# this module imports nothing of the package, so that it starts at once
ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- results:(\w+)(?: (by patient))? -->\n).*?(<!-- /results -->)", re.DOTALL)
HEADS = {
    "bag_auroc": "bag AUROC",
    "bag_accuracy": "bag accuracy",
    "bag_macro_f1": "bag macro F1",
    "instance_auroc": "slice AUROC",
    "instance_ap": "slice AP",
    "positive_mass": "mass on positive",
}
COLUMNS = {
    "epochs": "epochs",
    "settings_tried": "settings tried",
    "wall_seconds": "s a run",
    "cpu_seconds": "s of a core a run",
    "num_seeds": "seeds",
    "verdict": "AUROC, compared with ABMIL",
}
NOTICED = ("killed", "killed later", "timeout", "suspicious")


def result_table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result: one row per method, mean with 95 % interval or sd, then the note."""
    heads = {**HEADS, **result.get("heads", {})}  # a result may add values, or rename them
    keys = [key for key in heads if any(row["values"].get(key) is not None for row in result["rows"])]
    columns = result.get("columns", [])
    lines = _header(["method", *(heads[key] for key in keys), *(COLUMNS[key] for key in columns)])
    for row in result["rows"]:
        cells = [_cell(row["values"].get(k), row.get("interval_95", {}).get(k), row.get("sd", {}).get(k)) for k in keys]
        cells += [str(row.get(key, "-")) for key in columns]
        lines.append(_line([row["name"], *cells]))
    return "\n".join([*lines, "", result["note"], ""])


def patient_table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result by patient: bag and slice AUROC of every method."""
    rows = [row for row in result["rows"] if "instance_auroc" in row["values"]]
    keys = ("bag_auroc", "instance_auroc")
    lines = _header(["patient", *(f"{row['name']}: {HEADS[k]}" for row in rows for k in keys if k in row["values"])])
    for patient in rows[0]["patients"]:
        values = [row["patients"][patient] for row in rows]
        lines.append(_line([patient, *(_cell(v[k], None) for v in values for k in keys if k in v)]))
    return "\n".join([*lines, "", result["by_patient"], ""])


def list_table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a list of texts, then the note."""
    lines = _header(list(result["columns"].values()))
    lines += [_line([row[key] for key in result["columns"]]) for row in result["rows"]]
    return "\n".join([*lines, "", result["note"], ""])


def mutants_table(result: dict[str, Any]) -> str:
    """Return the Markdown table of ``scripts/mutants``: how many were noticed, and the reason for each that was not."""
    reasons = {row["mutant"]: row.get("reason", "") for row in result["rows"] if row["status"] not in NOTICED}
    noticed = result["drawn"] - len(reasons)
    line = f"{noticed} of {result['drawn']} mutants ({100 * noticed / result['drawn']:.1f} %) are noticed"
    lines = [f"{line}, of {result['of']:,} that mutmut makes (seed {result['seeds'][0]}).", ""]
    lines += _header(["mutant that no test notices", "reason"]) if reasons else []
    lines += [_line([f"`{name.removeprefix('monai_mil_ext.')}`", reason]) for name, reason in reasons.items()]
    return "\n".join([*lines, ""])


def _header(heads: Sequence[str]) -> list[str]:
    return [_line(heads), "|---" * len(heads) + "|"]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: float | None, interval: list[float | None] | None, sd: float | None = None) -> str:
    if value is None:
        return "-"
    shown = f"{value:.3f}" if sd is None else f"{value:.3f} ± {sd:.3f}"
    return f"{shown} [{interval[0]:.2f}, {interval[1]:.2f}]" if interval and None not in interval else shown


UNMEASURED = {"device": "Not measured yet: `scripts/device_check` on a machine with a CUDA device writes this table.\n"}
SUMMARIES = {"front": front_table, "picture": picture_caption, "verdicts": verdict_table}  # of several results
KINDS = {
    "benchmark": benchmark_table,
    "claims": list_table,
    "list": list_table,
    "mutants": mutants_table,
    "parts": time_table,
    "profiles": profile_table,
}


def fill(text: str) -> str:
    """Return the text with a new table in every ``<!-- results:NAME -->`` block that has results."""

    def block(match: re.Match[str]) -> str:
        file = ROOT / "docs" / "results" / f"{match[2]}.json"
        if match[2] in SUMMARIES:
            return match[1] + SUMMARIES[match[2]](file.parent) + match[4]
        if not file.exists():
            return match[1] + UNMEASURED[match[2]] + match[4] if match[2] in UNMEASURED else match[0]
        result = json.loads(file.read_text())
        table = KINDS.get(result.get("kind"), result_table)
        return match[1] + (patient_table if match[3] else table)(result) + match[4]

    return BLOCK.sub(block, text)


def show_reports(folders: list[Path]) -> None:
    """Print the reports of evaluations, one column per evaluation."""
    reports = {folder.name: json.loads((folder / "report.json").read_text()) for folder in folders}
    first = next(iter(reports.values()))
    print(f"\n{first['num_bags']} bags of {', '.join(first['patients'])}; 95 % interval over {first['resampled']}")
    print(f"{'':<16}" + "".join(f"{name:>26}" for name in reports) + f"{'center / chance':>18}")
    baselines = {
        "bag_auroc": 0.5,
        "instance_auroc": first["values"]["center_auroc"],
        "instance_ap": first["values"]["center_ap"],
        "positive_mass": first["values"]["positive_fraction"],
    }
    for key, head in HEADS.items():
        cells = [_cell(report["values"][key], report["interval_95"][key]) for report in reports.values()]
        line = "".join(f"{cell:>26}" for cell in cells)
        print(f"{head:<16}{line}{_cell(baselines.get(key), None):>18}")


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 if ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(prog="scripts/results", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--show", nargs="+", type=Path, metavar="FOLDER", help="folders with a report.json")
    parser.add_argument("--benchmark", action="store_true", help="print the speed table, too")
    args = parser.parse_args(words)
    if args.benchmark:
        print(benchmark_table(json.loads((ROOT / "docs" / "results" / "benchmarks.json").read_text())))
    if args.show:
        show_reports(args.show)
        return 0
    pages = [p for p in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if p.exists()]
    stale = [page for page in pages if fill(page.read_text()) != page.read_text()]
    for page in stale:
        print(f"{page.relative_to(ROOT)}: the table differs from docs/results" if args.check else f"wrote {page.name}")
        if not args.check:
            page.write_text(fill(page.read_text()))
    return int(args.check and bool(stale))
