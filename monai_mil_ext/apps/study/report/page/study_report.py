"""Report of a study: one HTML page, one JSON file and CSV tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, optional_dependency, write_csv, write_json
from monai_mil_ext.visualize.index_page import case_viewer

from .case_gallery import case_gallery, data_address
from .cohort_section import cohort_blocks
from .prose import join_words, methods_text, plan_words, references
from .report_blocks import page_table, text_block
from .report_cases import by_error, case_picture
from .report_facts import ReportFacts, clean
from .report_notes import limits, report_notes
from .report_sections import report_sections
from .report_tables import DASH, csv_tables, duration, format_number
from .results_prose import headline, results_text

__all__ = ["write_report"]

jinja2 = optional_dependency("", "jinja2")

TABLES = (
    "methods",
    "folds",
    "classes",
    "sites",
    "comparisons",
    "thresholds",
    "calibration",
    "curves",
    "cases",
    "effects",
    "sets",
)
MAX_CURVES, MAX_ROWS = 20, 3000
MAX_BYTES = 4_500_000  # of all pictures, so that the page stays below 8 MB
NAMES = {"num_samples": "bootstrap samples", "threads": "threads of a process"}
VIEWERS = "viewers"  # folder of the results of an inference, beside the report
HIDDEN = ("attention", "position", "coords", "pictures")  # of a case: only as pictures


def write_report(facts: ReportFacts, folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html``, ``report.json`` and ``tables/*.csv``.

    The page is one file that loads nothing, and works without its script.

    Args:
        facts: facts of the study. Of its cases, the 20 with the greatest errors have a :py:func:`case_picture` if they
            have ``attention`` and ``position`` or ``coords``, and all with ``pictures`` (PNG or JPEG) show these,
            4.5 MB at most.
        folder: folder of the files, which is created. Where the results of an inference lie in its folder ``viewers``,
            the table links each case to its viewer, ``viewers/<case_id>/viewer/index.html``.

    Returns:
        Path of the page.
    """
    path, rows = Path(folder) / "report.html", by_error(facts.cases)
    curves = {i: _curve(row) for i, row in enumerate(rows[:MAX_CURVES]) if len(row.get("attention", ()))}
    gallery = case_gallery(rows, facts.task, MAX_BYTES)
    facts = replace(facts, cases=[{k: v for k, v in row.items() if k not in HIDDEN} for row in rows]).cleaned()
    values = _page_values(facts, curves, gallery)
    _link_viewers(values["cases"], path.parent)
    page = _template().render(**values)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    write_json(path.with_suffix(".json"), _json(facts))
    tables = csv_tables(facts)
    for name in TABLES:
        table = path.parent / "tables" / f"{name}.csv"
        if name in tables:
            write_csv(table, tables[name])
        else:
            table.unlink(missing_ok=True)  # of an earlier report
    return path


@cache
def _template() -> Any:
    source = files(__package__).joinpath("study_page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source)


def _link_viewers(cases: dict[str, Any], folder: Path) -> None:
    """Add the address of its viewer to each row of the table of cases that has one."""
    for row in cases["rows"]:
        row["viewer"] = case_viewer(folder / VIEWERS, row["case"])
        row["viewer"] = f"{VIEWERS}/{row['viewer']}" if row["viewer"] else ""
    if any(row["viewer"] for row in cases["rows"]):
        cases["text"] += " Cases with a link have a viewer; it shows the prediction of one inference with its model."


def _curve(row: Mapping[str, Any]) -> str:
    """Return the attention of a case as a picture in a data address."""
    return data_address(case_picture(row["attention"], row.get("position"), row.get("coords")))


def _page_values(facts: ReportFacts, curves: Mapping[int, str], gallery: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "title": f"{facts.title}: {facts.external}" if facts.external else facts.title,
        "headline": headline(facts),
        "subtitle": _subtitle(facts),
        "notes": report_notes(facts),
        "methods_text": methods_text(facts),
        "references": references(facts),
        "results_text": results_text(facts),
        "sections": report_sections(facts),
        "cases": _cases(facts, curves),
        "gallery": gallery,
        "cohort": [*cohort_blocks(facts)] or [text_block(_subtitle(facts))],
        "limits": limits(facts),
        "provenance": _provenance(facts),
        "use": RESEARCH_USE,
    }


def _subtitle(facts: ReportFacts) -> str:
    cohort = facts.cohort
    parts = [f"{format_number(cohort.get('num_cases'))} cases"]
    parts += [f"{format_number(cohort['num_patients'])} patients"] if cohort.get("num_patients") else []
    parts += [f"{cohort['num_sites']} sites"] if (cohort.get("num_sites") or 0) > 1 else []
    plan = "external cohort, frozen models" if facts.external else plan_words(facts)
    return ", ".join(parts) + (f"; {plan}" if plan else "") + f". {RESEARCH_USE.capitalize()}."


def _cases(facts: ReportFacts, curves: Mapping[int, str]) -> dict[str, Any]:
    """Return the table of cases, those with the greatest errors first."""
    shown = list(facts.cases[:MAX_ROWS])
    methods = [name for name in facts.summaries if any(name in (row.get("outputs") or {}) for row in shown)]
    heads = {"patient": "patient", "site": "site", "fold": "fold", "truth": "truth", "error": "error"}
    heads = {key: text for key, text in heads.items() if any(row.get(key) not in (None, "") for row in shown)}
    if all(row.get("patient") == row.get("case_id") for row in shown):
        heads.pop("patient", None)
    number = {"num_instances": "instances"} if any(row.get("num_instances") is not None for row in shown) else {}
    rows = [
        {
            "case": str(row.get("case_id", "")),
            "cells": [
                *(_cell(row.get(key)) for key in heads),
                *(_cell((row.get("outputs") or {}).get(name)) for name in methods),
                *(_cell(row.get(key)) for key in number),
            ],
            "picture": curves.get(i, ""),
        }
        for i, row in enumerate(shown)
    ]
    titles = ["case", *(["attention"] if curves else []), *heads.values(), *methods, *number.values()]
    return {"rows": rows, "heads": titles, "has_pictures": bool(curves), "text": _cases_text(facts, len(curves))}


def _cell(value: Any) -> dict[str, Any]:
    if value is None:
        return {"text": DASH, "reason": "no prediction", "is_number": True, "sort": None}
    is_number = isinstance(value, (int, float))
    text = format_number(value) if is_number else str(value)
    return {"text": text, "reason": "", "is_number": is_number, "sort": value if is_number else None}


def _cases_text(facts: ReportFacts, curves: int) -> str:
    task = facts.task
    positive = task.class_names[1] if task.is_binary else ""
    kind = {"regression": "the absolute difference", "ordinal": "the distance from the true class"}.get(
        task.kind,
        "the mean over the known labels"
        if task.kind == "multilabel"
        else "one minus the probability of the true class",
    )
    kind = "the part of comparable cases of the same fold that are ranked wrongly" if task.has_times else kind
    of = f" (probability of {positive})" if positive else ""
    text = f"Out-of-fold predictions{of}, sorted by the error{_sorted_by(facts)}: {kind}."
    if facts.external:
        text = text.replace("Out-of-fold predictions", "Predictions of the frozen models")
    if len(facts.cases) > MAX_ROWS:
        text += f" The {MAX_ROWS} cases with the greatest errors of {len(facts.cases)}; tables/cases.csv has all."
    if curves:
        text += " Pictures in the table show where the attention is, relative to uniform."
    return text


def _sorted_by(facts: ReportFacts) -> str:
    """Return the method whose errors sort the cases, the first of each row, if there are several."""
    outputs = [*(next(iter(facts.cases), {}).get("outputs") or {})]
    return f" of {outputs[0]}" if len(outputs) > 1 else ""


def _provenance(facts: ReportFacts) -> list[dict[str, Any]]:
    given = dict(facts.provenance)
    times, versions = given.pop("times", None) or {}, given.pop("versions", None) or {}
    seeds = given.pop("seeds", None)
    if "wall_seconds" in given:
        given["time in all"] = duration(given.pop("wall_seconds"))
    shown = {NAMES.get(name, name): _words(value) for name, value in given.items() if value not in (None, "")}
    if seeds is not None:
        shown["seeds"] = _words(seeds)
    shown |= {"versions": join_words([f"{name} {version}" for name, version in versions.items()])} if versions else {}
    blocks: list[dict[str, Any]] = [{"kind": "facts", "facts": shown}]
    if times:
        rows = [{"name": str(part), "time": duration(seconds)} for part, seconds in times.items()]
        blocks.append(
            page_table(
                rows,
                {"name": "part", "time": "time"},
                "Time of each part; that of the training is the sum of all runs",
            )
        )
    return blocks


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return str(value)


def _json(facts: ReportFacts) -> dict[str, Any]:
    """Return the facts as JSON, with the texts of the page."""
    names = ("title", "external", "cohort", "folds", "methods", "summaries", "comparisons", "clinical", "histories")
    task = {"kind": facts.task.kind, "class_names": facts.task.class_names, "bin_edges": facts.task.bin_edges}
    texts = {"headline": headline(facts), "methods_text": methods_text(facts), "results_text": results_text(facts)}
    return {
        "use": RESEARCH_USE,
        **texts,
        "references": references(facts),
        "task": clean(task),
        **{name: getattr(facts, name) for name in names},
        "cases": facts.cases,
        "provenance": facts.provenance,
        "notes": report_notes(facts),
        "limits": limits(facts),
    }
