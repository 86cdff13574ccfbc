"""Verdicts on the aims that were set before the measurements, each made from its measured interval.

``scripts/results`` writes them to docs/index.md, in the block ``<!-- results:verdicts -->``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["verdict", "verdict_table"]

Row = Mapping[str, Any]
Interval = Sequence[float]
KERNEL = ("ABMIL + KG", "ABMIL + NG")
PAIR = "kernel - NG"
REFERENCE = "slice-supervised"
TESTS = {"one": "one lesion", "two": "two lesions", "three": "three lesions", "other_head": "another head"}


def verdict(interval: Interval, bar: float) -> str:
    """Return what a 95 % interval says of a value that should be at least ``bar``.

    Example:
        >>> verdict((0.03, 0.09), 0.02), verdict((0.01, 0.09), 0.02), verdict((-0.1, 0.01), 0.02)
        ('met', 'open', 'not met')
    """
    low, high = interval
    return "met" if low >= bar else "not met" if high < bar else "open"


def verdict_table(folder: Path) -> str:
    """Return the Markdown table of the verdicts, from the results in a folder."""
    lines = ["| aim | bar | measured | verdict | page |", "|---|---|---|---|---|"]
    rows = (*_runs(folder), _kernel(folder), *_sets(folder))
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), "", NOTE, ""])


NOTE = (
    "Brackets are 95 % intervals by drawing test scans of the [lesion benchmark](lesions.md). *Met* and *not met* mean "
    "that the whole interval is on one side of the bar, *open* that it is on both."
)


def _runs(folder: Path) -> list[tuple[str, ...]]:
    """Compare WindowMIL with the reference on one lesion, and MarkovMIL with a fixed value on two."""
    aim, page = "any number of lesions, from labels of scans", "[lesions](lesions.md)"
    pair = _pair(_rows(folder, "lesions_chain"), ("WindowMIL", REFERENCE), "one", "one")
    found, ends = pair["values"]["instance_auroc"], pair["interval_95"]["instance_auroc"]
    many = {row["name"]: row for row in _read(folder, "lesions_trained_on_many")["tests"]["two"]}["MarkovMIL"]
    two, limits = many["values"]["instance_auroc"], many["interval_95"]["instance_auroc"]
    first = f"`WindowMIL` less the reference, one lesion: {_shown(found, ends)}"
    second = f"`MarkovMIL`, trained on one to three, two lesions: {_shown(two, limits)}"
    return [
        (aim, "slice AUROC of the reference trained on slices", first, verdict(ends, 0), page),
        (aim, "slice AUROC .90 with two lesions", second, verdict(limits, 0.9), page),
    ]


def _kernel(folder: Path) -> tuple[str, ...]:
    rows = [row for row in _rows(folder, "lesions_kernel") if row["cohort"] == "one" and row["pair"] == list(KERNEL)]
    parts, verdicts = [], []
    for row in rows:
        shown = [_shown(row["values"][name], row["interval_95"][name]) for name in ("instance_auroc", "bag_auroc")]
        parts.append(f"{TESTS[row['test']]}: slices {shown[0]}, scans {shown[1]}")
        slices, bags = row["interval_95"]["instance_auroc"], row["interval_95"]["bag_auroc"]
        verdicts.append(_both(verdict(slices, 0.02), verdict(bags, 0)))
    counts = {word: verdicts.count(word) for word in ("met", "open", "not met") if word in verdicts}
    words = ", ".join(f"{word} on {count}" for word, count in counts.items()) + f" of {len(rows)} test sets"
    drawn = [
        row["interval_95"]["instance_auroc"] for row in _rows(folder, "guidance_toy") if row["name"].endswith(PAIR)
    ]
    words += f"; in slices of drawn bags, met on {[verdict(ends, 0.02) for ends in drawn].count('met')} of {len(drawn)}"
    (semi,) = [row for row in _rows(folder, "guidance_semi_synthetic") if row["name"].endswith(PAIR)]
    words += f"; on the semi-synthetic set, {verdict(semi['interval_95']['instance_auroc'], 0.02)}"
    bar = "slice AUROC .02 above Normal Guidance, without loss of bag AUROC"
    return "kernel guidance", bar, "; ".join(parts), words, "[guidance](guidance.md)"


def _sets(folder: Path) -> list[tuple[str, ...]]:
    """Compare coverage with its band, and the sizes of sets with a fifth of those of ABMIL."""
    aim, page = "slices with a guarantee", "[sets](conformal.md)"
    rows = {row["name"]: row for row in _rows(folder, "lesions_sets")}
    below = [
        (n, level) for n, row in rows.items() for level, band in row["bands"].items() if _coverage(row, level) < band[0]
    ]
    values = [_coverage(row, level) for row in rows.values() for level in row["bands"]]
    text = f"{min(values):.3f} to {max(values):.3f} for {len(rows)} methods and both levels"
    window = rows["WindowMIL"]
    found = []
    for other in ("ABMIL", "ABMIL + NG"):
        name = f"ratio_{other}_90"
        ends = window["interval_95"][name]
        shown = f"{window['values'][name]:.1f} [{ends[0]:.1f}, {ends[1]:.1f}]"
        found.append((f"{other} / `WindowMIL` {shown}", verdict(ends, 5)))
    return [
        (aim, "coverage not below its band, 90 % and 95 %", text, "not met" if below else "met", page),
        (aim, "a fifth of the slices", "; ".join(text for text, _ in found), _both(*(v for _, v in found)), page),
    ]


def _coverage(row: Row, level: str) -> float:
    return float(row["values"][f"coverage_{level}"])


def _both(*words: str) -> str:
    return next((word for word in ("not met", "open") if word in words), "met")


def _shown(value: float, interval: Interval) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _pair(rows: Sequence[Row], pair: Sequence[str], cohort: str, test: str) -> Row:
    (row,) = [row for row in rows if (row["pair"], row["cohort"], row["test"]) == (list(pair), cohort, test)]
    return row


def _read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def _rows(folder: Path, name: str) -> list[Row]:
    rows: list[Row] = _read(folder, name)["rows"]
    return rows
