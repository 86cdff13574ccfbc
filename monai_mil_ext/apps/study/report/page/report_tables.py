"""Tables of the report of a study as rows of CSV files, and numbers with sensible digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .report_facts import ReportFacts

__all__ = ["DASH", "MINUS", "csv_tables", "duration", "format_interval", "format_number", "format_p"]

DASH, MINUS = "\u2013", "\u2212"
HUGE = 1e6  # numbers from here on are written as powers of ten
Row = dict[str, Any]


def format_number(value: Any, digits: int | None = None) -> str:
    """Return a number with sensible digits, or a dash.

    Args:
        value: number, or None.
        digits: digits after the point; by default two up to 10, and three significant ones above and below 0.01.

    Example:
        >>> [format_number(v) for v in (0.834, 0.00312, 123.456, 12345.6, 3, 0.999, 1.8e10)]
        ['0.83', '0.003', '123', '12346', '3', '1.00', '2e+10']
    """
    if value is None or not isinstance(value, (int, float)) or not math.isfinite(value):
        return DASH
    if isinstance(value, int):
        return f"{value}".replace("-", MINUS)
    if abs(value) >= HUGE:
        return f"{value:.0e}".replace("-", MINUS)
    if digits is None:
        size = abs(value)
        digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.01 or size < 1e-4 else 3
    text = f"{value:.{digits}f}"
    return (text if float(text) else text.lstrip("-")).replace("-", MINUS)


def format_interval(found: Mapping[str, Any] | None, number: str = "value") -> str:
    """Return a value with its interval; narrow intervals get a third digit, wide ones the digits of each number.

    Example:
        >>> format_interval({"value": 0.834, "low": 0.71, "high": 0.917})
        '0.83 [0.71, 0.92]'
        >>> format_interval({"value": 0.834, "low": 0.828, "high": 0.841})
        '0.834 [0.828, 0.841]'
        >>> format_interval({"value": 5.2, "low": 0.214, "high": 121.3})
        '5.20 [0.21, 121]'
    """
    if not found or found.get(number) is None:
        return DASH
    low, high = found.get("low"), found.get("high")
    if low is None or high is None:
        return format_number(found[number])
    sizes = [abs(v) for v in (found[number], low, high)]
    is_wide = max(sizes) >= 10 and 0 < min(sizes) < 1
    digits = (
        None if is_wide else 0 if max(sizes) >= 100 else 1 if max(sizes) >= 10 else 3 if 0 < high - low < 0.03 else 2
    )
    value, low, high = (format_number(float(v), digits) for v in (found[number], low, high))
    return f"{value} [{low}, {high}]"


def format_p(p: Any) -> str:
    """Return a p-value as papers do.

    Example:
        >>> [format_p(p) for p in (0.0002, 0.0341, 0.2149, 1.0)]
        ['< 0.001', '0.034', '0.21', '1.00']
    """
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: Any) -> str:
    """Return a duration in words.

    Example:
        >>> [duration(value) for value in (2.34, 75, 7500)]
        ['2.3 s', '1 min 15 s', '2 h 5 min']
    """
    if not isinstance(seconds, (int, float)):
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def csv_tables(facts: ReportFacts) -> dict[str, list[Row]]:
    """Return the rows of each CSV file by its name; files without rows are left out.

    They have all digits; a missing value is an empty cell.
    """
    per_method = {"folds": "folds", "classes": "classes", "sites": "sites", "thresholds": "thresholds", "sets": "sets"}
    tables: dict[str, list[Row]] = {
        "methods": [*_value_rows(facts)],
        **{name: [*_list_rows(facts, key)] for name, key in per_method.items()},
        "comparisons": [dict(row) for row in facts.comparisons],
        "calibration": [*_calibration_rows(facts)],
        "curves": [*_curve_rows(facts)],
        "cases": [_case_row(row) for row in facts.cases],
        "effects": [dict(row) for row in facts.clinical.get("effects") or ()],
    }
    return {name: rows for name, rows in tables.items() if rows}


def _inputs(facts: ReportFacts) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Yield method, input (bag, clinical variables or both) and summary of all that was evaluated."""
    for name, summary in facts.finished.items():
        yield name, "bag", summary
    for name, pair in (facts.clinical.get("summaries") or {}).items():
        for key, summary in pair.items():
            if summary:
                yield name, key, summary


def _value_rows(facts: ReportFacts) -> Iterable[Row]:
    for method, source, summary in _inputs(facts):
        values = summary.get("values") or {}
        groups = {**values, **_found(summary, "attention"), **_found(summary, "localization")}
        for metric, found in groups.items():
            numbers = found if isinstance(found, Mapping) else {"value": found}
            yield {
                "method": method,
                "input": source,
                "metric": metric,
                **{key: numbers.get(key) for key in ("value", "low", "high")},
                "num_cases": summary.get("num_cases"),
                "num_patients": summary.get("num_patients"),
            }


def _found(summary: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return summary.get(key) or {}


def _list_rows(facts: ReportFacts, key: str) -> Iterable[Row]:
    for method, source, summary in _inputs(facts):
        for row in summary.get(key) or ():
            yield {"method": method, "input": source, **flat(row)}


def flat(row: Mapping[str, Any]) -> Row:
    """Return a row whose values with intervals are three cells each."""
    cells: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            cells |= {f"{key}_{name}" if name != "value" else key: number for name, number in value.items()}
        else:
            cells[key] = value
    return cells


def _calibration_rows(facts: ReportFacts) -> Iterable[Row]:
    for method, source, summary in _inputs(facts):
        found = _found(summary, "calibration")
        ends = {key: _number(found.get(key)) for key in ("slope", "intercept")}
        for row in found.get("bins") or ():
            yield {"method": method, "input": source, **row, **ends}


def _number(found: Any) -> Any:
    return found.get("value") if isinstance(found, Mapping) else found


def _curve_rows(facts: ReportFacts) -> Iterable[Row]:
    """Yield the points of all curves in one form: x, y and the band of y."""
    for method, source, summary in _inputs(facts):
        for curve, x, y in (("roc", "fpr", "tpr"), ("pr", "recall", "precision")):
            named = {"": summary.get(curve), **(summary.get(f"{curve}_classes") or {})}
            for name, found in named.items():
                yield from _points(found, x, y, method=method, input=source, curve=curve, name=name)
        for group in _found(summary, "survival").get("groups") or ():
            kind = {"method": method, "input": source, "curve": "survival", "name": group.get("name")}
            yield from _points(group, "times", "survival", **kind)


def _points(found: Mapping[str, Any] | None, x: str, y: str, **names: Any) -> Iterable[Row]:
    if not found or not found.get(x) or not found.get(y):
        return
    missing = [None] * len(found[x])
    bands = [found.get(key) or missing for key in ("low", "high")]
    for a, b, low, high in zip(found[x], found[y], *bands, strict=False):
        yield {**names, "x": a, "y": b, "low": low, "high": high}


def _case_row(row: Mapping[str, Any]) -> Row:
    outputs = {f"output_{name}": value for name, value in (row.get("outputs") or {}).items()}
    return {**{key: value for key, value in row.items() if key != "outputs"}, **outputs}
