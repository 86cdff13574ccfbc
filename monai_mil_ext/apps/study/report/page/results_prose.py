"""Results of a study in one line, and as a paragraph that is fit for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .prose import count_in_words, has_thresholds, join_words
from .report_facts import ReportFacts
from .report_tables import format_interval, format_p

__all__ = ["headline", "results_text"]


def headline(facts: ReportFacts) -> str:
    """Return the result in one line."""
    best, metric = facts.best, facts.metric(facts.main)
    if not best or facts.value(best) is None:
        return "No method has a value of the main metric: see the notes."
    value = format_interval(facts.value(best))
    number = sum(facts.value(name) is not None for name in facts.finished)
    if number == 1:
        return f"{best}: {metric} {value}"
    return f"Highest {metric} of {count_in_words(number)} methods: {best}, {value}"


def results_text(facts: ReportFacts) -> str:
    """Return what was found as a paragraph for the results section of a paper."""
    writers = (_main_results, _operating_points, _comparisons, _with_clinical, _risk, _localization)
    parts = (write(facts) for write in writers)
    return " ".join(sentence for part in parts for sentence in part)


def _main_results(facts: ReportFacts) -> Iterable[str]:
    metric = facts.metric(facts.main)
    known = [name for name in facts.finished if facts.value(name)]
    if not known:
        yield f"The {metric} could not be computed for any method."
        return
    first, *others = sorted(known, key=lambda name: -facts.value(name)["value"])  # type: ignore[index]
    yield f"{first} had {_article(metric)} {metric} of {_interval(facts.value(first))}."
    if others:
        yield f"The {metric} of {join_words([f'{n} was {_interval(facts.value(n))}' for n in others])}."
    if missing := [name for name in facts.summaries if name not in known]:
        yield f"There is no value of {join_words(missing)}."


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" or noun in ("MAE", "R²", "RMSE") else "a"


def _interval(found: Mapping[str, Any] | None, number: str = "value") -> str:
    """Return a value and its interval in the form of running text."""
    text = format_interval(found, number)
    if "[" not in text:
        return text
    value, ends = text.rstrip("]").split(" [")
    return f"{value} (95 % CI {ends.replace(', ', ' to ')})"


def _operating_points(facts: ReportFacts) -> Iterable[str]:
    best = facts.best
    pairs = [(m, facts.value(best, m)) for m in ("sensitivity", "specificity", "balanced_accuracy", "mae", "spearman")]
    known = [f"{_article(facts.metric(m))} {facts.metric(m)} of {_interval(v)}" for m, v in pairs if v]
    if known and facts.value(best):
        place = "At its operating points" if has_thresholds(facts) else "Furthermore"
        yield f"{place}, {best} had {join_words(known)}."


def _comparisons(facts: ReportFacts) -> Iterable[str]:
    known = [row for row in facts.comparisons if row.get("difference") is not None]
    own = {facts.best, f"{facts.best} + clinical"}
    shown = [row for row in known if own & {row["a"], row["b"]}] if len(known) > 3 else known
    for row in shown[:5]:
        corrected = len(facts.comparisons) > 1 and row.get("p_holm") is not None
        p = format_p(row["p_holm"] if corrected else row.get("p"))
        p = p if p.startswith("<") else f"= {p}"
        after = " after correction" if corrected else ""
        metric = facts.metric(str(row.get("metric", facts.main)))
        found = _interval(row, "difference").removesuffix(")")
        start = "; " if "(" in found else " ("
        yield f"The difference in {metric} of {row['a']} minus {row['b']} was {found}{start}p {p}{after})."
    if len(known) > len(shown):
        small = sum(row.get("p_holm") is not None and row["p_holm"] < 0.05 for row in known)
        counted = count_in_words(small) if small else "none"
        yield f"Of all {len(known)} comparisons, {counted} had a corrected p below 0.05."


def _with_clinical(facts: ReportFacts) -> Iterable[str]:
    pair = (facts.clinical.get("summaries") or {}).get(facts.best) or {}
    found = {key: ((pair.get(key) or {}).get("values") or {}).get(facts.main) for key in ("clinical", "both")}
    if all(value and value.get("value") is not None for value in found.values()):
        metric = facts.metric(facts.main)
        yield (
            f"Clinical variables alone had {_article(metric)} {metric} of {_interval(found['clinical'])}, and together "
            f"with {facts.best} of {_interval(found['both'])}."
        )


def _risk(facts: ReportFacts) -> Iterable[str]:
    found = (facts.finished.get(facts.best) or {}).get("survival") or {}
    if (p := found.get("log_rank_p")) is not None:
        number, text = count_in_words(len(found.get("groups") or ())), format_p(p)
        verb = "differed significantly" if p < 0.05 else "did not differ significantly"
        text = text if text.startswith("<") else f"= {text}"
        yield f"Survival of the {number} groups by risk of {facts.best} {verb} (log-rank p {text})."


def _localization(facts: ReportFacts) -> Iterable[str]:
    found = (facts.finished.get(facts.best) or {}).get("localization") or {}
    known = {key: _interval(value) for key, value in found.items() if isinstance(value, Mapping) and value.get("value")}
    if "instance_auroc" in known:
        text = f"The attention of {facts.best} ranked labeled instances with an AUROC of {known['instance_auroc']}"
        text += f", the distance from the center with {known['center_auroc']}" if "center_auroc" in known else ""
        yield text + (f"; the difference was {known['difference']}." if "difference" in known else ".")
