"""Section of the report of a study on clinical variables beside the bag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .report_blocks import Block, as_value, figure_blocks, metric_columns, page_table, text_block
from .report_facts import CHANCE, METRICS, OPERATING, ReportFacts
from .study_figures import MAX_LINES, forest_figure

__all__ = ["clinical_blocks"]

SOURCES = {"bag": "bag alone", "clinical": "clinical alone", "both": "both"}


def clinical_blocks(facts: ReportFacts) -> Iterable[Block]:
    """Yield the values of bag, clinical variables and both, and the effects of the variables."""
    rows, lines = [], []
    for method, pair in (facts.clinical.get("summaries") or {}).items():
        for key, summary in {"bag": facts.summaries.get(method), **pair}.items():
            values = (summary or {}).get("values") or {}
            rows.append({"method": method, "input": SOURCES.get(key, key), **values})
            if as_value(values.get(facts.main)).get("value") is not None:
                lines.append((f"{method}, {SOURCES.get(key, key)}", as_value(values[facts.main]), ()))
    if rows:
        keys = [facts.main, *(key for key in METRICS if key not in (facts.main, "ece", *OPERATING[2:]))]
        columns = {"method": "method", "input": "input", **metric_columns(facts, keys)}
        yield page_table(
            rows, columns, "Bag, clinical variables and both, with 95 % intervals", "could not be computed"
        )
    effects = [row for row in facts.clinical.get("effects") or () if row.get("ratio") is not None]
    caption = f"Bag, clinical variables and both: {facts.metric(facts.main)}"
    figures = (
        [forest_figure("sources", lines, facts.metric(facts.main), caption, CHANCE.get(facts.main))] if lines else []
    )
    yield from figure_blocks([*figures, *_effect_figures(facts, effects)])
    if facts.clinical.get("effects"):
        yield _effect_table(facts)
        yield text_block(
            "Effects are those of the whole cohort; they describe it and are no estimate of how well a model predicts."
        )
    yield from (text_block(note) for note in facts.clinical.get("notes") or ())


def _ratio_name(facts: ReportFacts) -> str:
    return "hazard ratio" if facts.task.has_times else "difference" if facts.task.kind == "regression" else "odds ratio"


def _effect_table(facts: ReportFacts) -> Block:
    rows = [
        {**row, "ratio": {**row, "value": row.get("ratio")}, "_reason": row.get("note")}
        for row in facts.clinical["effects"]
    ]
    columns = {"name": "variable", "outcome": "outcome", "kind": "kind", "model": "model", "num_cases": "cases"}
    if len({row.get("outcome") for row in rows}) < 2:
        columns.pop("outcome")
    columns |= {"ratio": _ratio_name(facts), "p": "p", "note": "note"}
    return page_table(rows, columns, "Effects of the variables with 95 % intervals", "could not be estimated")


def _effect_figures(facts: ReportFacts, effects: Sequence[Mapping[str, Any]]) -> Iterable[Block]:
    """Yield one figure for each model, so that its lines have short names."""
    models = list(dict.fromkeys(str(row.get("model") or "") for row in effects))
    for model in models:
        rows = [row for row in effects if str(row.get("model") or "") == model]
        yield from _effect_figure(facts, rows, model if len(models) > 1 else "")


def _effect_figure(facts: ReportFacts, effects: Sequence[Mapping[str, Any]], model: str) -> Iterable[Block]:
    keys = ["outcome"] if len({row.get("outcome") for row in effects}) > 1 else []
    lines = [
        (", ".join(str(row.get(key)) for key in ("name", *keys)), {**row, "value": row["ratio"]}, ()) for row in effects
    ]
    if 1 < len(lines) <= MAX_LINES:
        is_ratio = facts.task.kind != "regression" and all(row["ratio"] > 0 for row in effects)
        chance, name = (1.0 if is_ratio else 0.0), _ratio_name(facts)
        caption = f"Effects of the variables{f', {model}' if model else ''}: {name}"
        yield forest_figure(f"effects{f'-{model}' if model else ''}", lines, name, caption, chance, is_ratio)
