"""Notes of the report of a study: what the reader must know first, and what the study can't say."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from .prose import join_words
from .report_facts import ReportFacts
from .report_tables import format_number

__all__ = ["as_sentence", "limits", "method_reason", "report_notes"]

FEW_CASES, FEW_OF_CLASS = 50, 10
OPTION = r"(?<![\w-])--[a-z]"  # hints on options: in parentheses, as a sentence, and after a colon or semicolon
HINTS = (rf"\s*\([^()]*{OPTION}[^()]*\)", r"\s*Consider `--[^`]*`\.?", rf"[:;][^:;.]*{OPTION}[^;]*$")


def report_notes(facts: ReportFacts) -> list[str]:
    """Return the sentences for the top of the report, each of them once: those given, and what the numbers say."""
    notes = [*facts.notes, *_failures(facts), *_few(facts), *_short_training(facts), *_notes_of_methods(facts)]
    return list(dict.fromkeys(as_sentence(text, facts.summaries) for text in notes if text.strip()))


def as_sentence(text: str, names: Collection[str] = ()) -> str:
    """Return a note as a sentence for a reader: without hints on options of the command line, which are for the log.

    Args:
        text: the note.
        names: names that stay as they are at its start, such as those of methods.

    Example:
        >>> as_sentence("2 classes in this order: 'a', 'b' (--class_names gives another order)")
        "2 classes in this order: 'a', 'b'."
        >>> as_sentence("columns 'time' and 'event' are not used: --task survival takes them")
        "Columns 'time' and 'event' are not used."
    """
    plain = reduce(lambda found, hint: re.sub(hint, "", found), HINTS, text.strip()).rstrip(" ,;:")
    is_name = any(plain.startswith(name) for name in names) or re.match(r"[A-Za-z]+[A-Z\d_.]", plain)
    first = plain if is_name else f"{plain[:1].upper()}{plain[1:]}"
    return first if first.endswith((".", "!", "?")) else f"{first}."


def _failures(facts: ReportFacts) -> Iterable[str]:
    for name, summary in facts.summaries.items():
        failed = _reasons_of(facts, name)
        if not summary:
            yield f"{name} has no result: all of its runs failed or are missing{_reasons(failed)}."
        elif failed and not any(text.startswith(f"{name} failed") for text in facts.notes):
            runs = f"{len(failed)} run{'s' * (len(failed) > 1)}"
            yield f"{runs} of {name} failed, so its values are of fewer cases{_reasons(failed)}."


def _reasons_of(facts: ReportFacts, name: str) -> list[str]:
    failed = (facts.methods.get(name) or {}).get("failed") or ()
    return [str(text) for text in (failed.values() if isinstance(failed, Mapping) else failed)]


def _reasons(failed: list[str]) -> str:
    return f" ({'; '.join(dict.fromkeys(str(text).rstrip('.') for text in failed))})" if failed else ""


def _few(facts: ReportFacts) -> Iterable[str]:
    cases = facts.cohort.get("num_cases") or 0
    labels = {} if facts.task.kind == "regression" else facts.label_counts
    labels.pop("censored", None)
    rare = {name: count for name, count in labels.items() if count < FEW_OF_CLASS}
    if cases < FEW_CASES:
        yield f"There are only {format_number(cases)} cases: intervals are wide, and may be too narrow still."
    if rare:
        words = [f"{count} of {name}" for name, count in rare.items()]
        yield f"Values rest on few cases: {join_words(words)}."


def _short_training(facts: ReportFacts) -> Iterable[str]:
    """Note networks whose validation loss still fell in the last epoch that was allowed, in most folds."""
    for name in facts.finished:
        settings = (facts.methods.get(name) or {}).get("settings") or {}
        best = [_lowest_epoch(fold) for fold in facts.histories.get(name) or () if fold]
        last = sum(epoch is not None and epoch >= (settings.get("epochs") or math.inf) for epoch in best)
        if last * 2 > len(best):
            yield (
                f"The validation loss of {name} was lowest in the last epoch in {last} of {len(best)} folds: more "
                "epochs may improve it."
            )


def _lowest_epoch(fold: Sequence[Mapping[str, Any]]) -> float | None:
    known = [(row["val_loss"], row["epoch"]) for row in fold if row.get("val_loss") is not None]
    return min(known)[1] if known else None


def _notes_of_methods(facts: ReportFacts) -> Iterable[str]:
    notes: dict[str, list[str]] = {}
    for name, summary in facts.finished.items():
        for text in summary.get("notes") or ():
            notes.setdefault(str(text), []).append(name)
    for text, names in notes.items():
        yield text if len(names) == len(facts.finished) else f"{join_words(names)}: {text}"


def method_reason(facts: ReportFacts, name: str) -> str:
    """Return why values of a method may be missing."""
    summary = facts.summaries.get(name)
    if not summary:
        return "all runs of this method failed or are missing"
    return " ".join(summary.get("notes") or ()) or "not computable from these predictions"


def limits(facts: ReportFacts) -> list[str]:
    """Return what the study can't say."""
    found = [
        "Intervals and p-values are conditional on the trained networks: they contain the chance of which cases were "
        "studied, and not that of the training, its seeds and the split into folds.",
        "Attention says what a network weighted, which is not why a case has its label.",
    ]
    if len(facts.finished) > 1:
        found.append(
            "The highest of several values is too high on average; its method has to be confirmed in another cohort."
        )
    if facts.external:
        found.append("An external cohort shows how well a frozen model transfers to it, and not to any other.")
    elif facts.folds.get("by") == "site" or (facts.cohort.get("num_sites") or 0) > 1:
        found.append("Sites that are not in the cohort may differ more than those that are.")
    else:
        found.append("Cases are of one cohort; how well a model does at other sites is unknown.")
    if facts.main in ("auroc", "c_index"):
        found.append(
            "Ranking cases well does not make a model useful: that depends on threshold, prevalence and costs."
        )
    return found
