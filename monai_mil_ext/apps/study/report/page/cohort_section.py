"""Section of the report of a study on its cohort: the flow of cases, labels by site, folds and cases left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .report_blocks import Block, page_table
from .report_facts import ReportFacts
from .report_notes import as_sentence

__all__ = ["cohort_blocks"]

PARTS = {"train": "training", "val": "validation", "test": "test"}
MAX_LABELS = 5  # whose numbers stand in a cell


def cohort_blocks(facts: ReportFacts) -> Iterable[Block]:
    """Yield the tables of the cohort, as far as it is known."""
    yield from _flow(facts)
    yield from _labels(facts)
    yield from _folds(facts)
    left = facts.cohort.get("left_out")
    if left and not isinstance(left, int):
        rows = [{**row, "reason": as_sentence(str(row.get("reason") or ""))} for row in left]
        yield page_table(rows, {"case_id": "case", "reason": "reason"}, "Cases left out", "not recorded")


def _flow(facts: ReportFacts) -> Iterable[Block]:
    """Yield the numbers of cases that were given, left out for each reason, and analyzed."""
    cohort, left = facts.cohort, facts.cohort.get("left_out")
    if not cohort.get("num_cases"):
        return
    reasons = {} if isinstance(left, int) else Counter(as_sentence(str(row.get("reason") or "")) for row in left or ())
    excluded = left if isinstance(left, int) else sum(reasons.values())
    rows: list[dict[str, Any]] = [{"name": "given", "num_cases": cohort["num_cases"] + excluded}]
    rows += [{"name": f"left out: {reason.rstrip('.')}", "num_cases": count} for reason, count in reasons.items()]
    rows += [{"name": "left out", "num_cases": excluded}] if excluded and not reasons else []
    rows.append({"name": "analyzed", "num_cases": cohort["num_cases"], "num_patients": cohort.get("num_patients")})
    heads = {"name": "flow", "num_cases": "cases", "num_patients": "patients"}
    yield page_table(rows, heads, "Flow of cases", "patients of cases that were left out are not counted")


def _labels(facts: ReportFacts) -> Iterable[Block]:
    labels = {"all": facts.cohort.get("labels") or {}, **(facts.cohort.get("sites") or {})}
    names = list(dict.fromkeys(name for counts in labels.values() for name in counts))
    if names:
        rows = [{"name": site, **{f"n_{n}": counts.get(n, 0) for n in names}} for site, counts in labels.items()]
        heads = {"name": "site", **{f"n_{n}": n for n in names}}
        yield page_table(rows, heads, "Labels by site" if len(rows) > 1 else "Labels")


def _folds(facts: ReportFacts) -> Iterable[Block]:
    counts = facts.folds.get("counts") or ()
    if not counts:
        return
    heads = {"fold": "fold", "repeat": "repeat", **PARTS}
    has_patients = any("test_patients" in row for row in counts)
    if has_patients and facts.cohort.get("num_patients") != facts.cohort.get("num_cases"):
        heads |= {f"{part}_patients": f"patients of {name}" for part, name in PARTS.items()}
    if len({row.get("repeat") for row in counts}) < 2:
        heads.pop("repeat")
    names = list(dict.fromkeys(n for row in counts for part in PARTS for n in row.get(f"{part}_labels") or ()))
    rows = [{**row, "fold": str(row.get("fold", "")), **_with_labels(row, names)} for row in counts]
    of = f"; in parentheses {' / '.join(names)}" if 0 < len(names) <= MAX_LABELS else ""
    yield page_table(rows, heads, f"Cases of each fold{of}")


def _with_labels(row: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    """Return the number of cases of each part with those of each label, such as ``"16 (12 / 4)"``."""
    if not 0 < len(names) <= MAX_LABELS:
        return {}
    return {
        part: f"{row.get(part)} ({' / '.join(str((row.get(f'{part}_labels') or {}).get(name, 0)) for name in names)})"
        for part in PARTS
    }
