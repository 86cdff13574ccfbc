"""Text of the check of a cohort for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .check_settings import Problem

__all__ = ["check_text", "problem_lines"]

# columns of the terminal, with shorter headings
COLUMNS = {
    "case_id": "case",
    "patient": "patient",
    "label": "label",
    "site": "site",
    "split": "split",
    "container": "file",
    "shape": "size",
    "spacing": "spacing",
    "plane": "plane",
    "modality": "modality",
    "mpp": "mpp",
    "magnification": "power",
    "levels": "levels",
    "tiles": "tiles",
    "encoder": "encoder",
    "width": "width",
    "instances": "instances",
    "range": "range",
    "encoded": "encoded",
    "status": "status",
}
HINT = "Correct the cohort, or leave these cases out with `--on_bad skip`."
NAMED = 5  # cases that have one problem
ALIKE = 10  # texts of one rule
WIDEST = 24


def check_text(
    head: str,
    rows: Sequence[dict[str, Any]],
    problems: Sequence[Problem],
    notes: Sequence[Problem],
    counts: Sequence[dict[str, Any]],
    sentences: Sequence[str],
    max_rows: int,
    hint: str = HINT,
) -> str:
    """Return a table of the first cases, then problems and notes, the labels, and sentences on the whole.

    Args:
        head: first line.
        rows: what is known of each case.
        problems: problems, of which those with one text become one line.
        notes: notes, likewise.
        counts: numbers of patients and cases by label and site.
        sentences: what is to be said at the end.
        max_rows: number of cases that are listed, those with problems first; 0 lists none.
        hint: what can be done, if all problems are of single cases.
    """
    ordered = sorted(rows, key=lambda row: row["status"] == "ok")[:max_rows] if len(rows) > max_rows else rows
    more = [f"... and {len(rows) - max_rows} more in check.csv"] if 0 < max_rows < len(rows) else []
    parts = [
        [head],
        [*_table([_shown(row) for row in ordered]), *more],
        [
            *problem_lines("problem", problems),
            *([hint] if hint and problems and all(problem.case for problem in problems) else []),
        ],
        problem_lines("note", notes),
        _table([{**row, "site": row["site"] or None} for row in counts]),
        [sentence for sentence in sentences if sentence],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row.get("lowest"), row.get("highest")
    span = None if low is None or high is None else f"{low:.4g} to {high:.4g}"
    return {title: {**row, "range": span}.get(key) for key, title in COLUMNS.items()}


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table without the columns that are empty everywhere."""
    names = [
        name for name in dict.fromkeys(key for row in rows for key in row) if any(_text(r.get(name)) for r in rows)
    ]
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
        if names
    ]


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " x ".join(_text(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def problem_lines(title: str, problems: Sequence[Problem]) -> list[str]:
    """Return a line for each text, with the cases that have it, after a line with their number.

    Of texts that state one rule and differ in what they got, the first are listed.

    Example:
        >>> problem_lines("note", [Problem("two stacks", case) for case in "ab"])
        ['2 notes:', '  a, b: two stacks']
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.message, problem.option), []).append(problem.case)
    lines = []
    totals, seen = Counter(_rule(message) for message, _ in groups), Counter[str]()
    for (message, option), cases in groups.items():
        rule = _rule(message)
        seen[rule] += 1
        if seen[rule] <= ALIKE:
            named = [case for case in cases if case]
            more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
            where = f"{', '.join(named[:NAMED])}{more}: " if named else ""
            hint = f". Consider `{option}`." if option else ""
            lines.append(f"  {where}{message}{hint}")
        elif seen[rule] == totals[rule]:
            lines.append(f"  ... and {totals[rule] - ALIKE} more: {rule}")
    return [f"{len(problems)} {title}{'s' * (len(problems) != 1)}:", *lines] if lines else []


def _rule(message: str) -> str:
    """Return what a message asks for, without what it got."""
    return message.partition(", got ")[0]
