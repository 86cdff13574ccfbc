"""Blocks of the page of a study: texts, tables and groups of figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .report_facts import ReportFacts
from .report_notes import method_reason
from .report_tables import DASH, format_interval, format_number, format_p

__all__ = ["Block", "as_value", "figure_blocks", "method_rows", "metric_columns", "page_table", "text_block"]

Block = dict[str, Any]
EMPTY = ("note", "thresholds", "chosen", "settings")  # cells that need no reason to be empty
TEXTS = ("name", "method", "model", "kind", "case_id", "metric", "note")


def text_block(text: str) -> Block:
    """Return a paragraph."""
    return {"kind": "text", "text": text}


def figure_blocks(figures: Iterable[Block]) -> Iterable[Block]:
    """Yield one block with all figures, or nothing without any."""
    listed = list(figures)
    if listed:
        yield {"kind": "figures", "figures": listed}


def metric_columns(facts: ReportFacts, keys: Iterable[str]) -> dict[str, str]:
    """Return the headings of metrics."""
    return {key: facts.metric(key) for key in keys}


def method_rows(facts: ReportFacts) -> list[dict[str, Any]]:
    """Return a row for each method: its values, and why some of them may be missing."""
    return [
        {
            "method": name,
            "num_cases": (summary or {}).get("num_cases"),
            **((summary or {}).get("values") or {}),
            "_reason": method_reason(facts, name),
        }
        for name, summary in facts.summaries.items()
    ]


def as_value(found: Any) -> Mapping[str, Any]:
    """Return a value with its interval, which it may lack."""
    return found if isinstance(found, Mapping) else {"value": found}


def page_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], caption: str, reason: str = ""
) -> dict[str, Any]:
    """Return a table for the page.

    Args:
        rows: rows, whose values are texts, numbers, or numbers with intervals.
        columns: headings by key, in order; columns without any value are left out.
        caption: title of the table.
        reason: why values are missing, which a dash says, unless a row has ``_reason``.
    """
    keys = [key for key in columns if any(not _is_missing(row.get(key)) for row in rows)]
    cells = [[_cell(row.get(key), key, str(row.get("_reason") or reason)) for key in keys] for row in rows]
    return {"kind": "table", "heads": [columns[key] for key in keys], "rows": cells, "caption": caption}


def _is_missing(value: Any) -> bool:
    number = value.get("value") if isinstance(value, Mapping) else value
    return number is None or number == ""


def _cell(value: Any, key: str, reason: str) -> dict[str, Any]:
    if _is_missing(value) and key in EMPTY:
        return {"text": "", "reason": "", "is_number": False}
    if _is_missing(value):
        own = value.get("reason") if isinstance(value, Mapping) else ""
        return {"text": DASH, "reason": own or reason or "not known", "is_number": key not in TEXTS}
    if isinstance(value, Mapping):
        text = format_interval(value)
    elif key in ("p", "p_holm", "log_rank_p"):
        text = format_p(value)
    else:
        text = format_number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
    return {"text": text, "reason": "", "is_number": not isinstance(value, str)}
