"""Sections of the report of a study, in the order in which a reader wants them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .clinical_section import clinical_blocks
from .prose import join_words
from .report_blocks import (
    Block,
    as_value,
    figure_blocks,
    method_rows,
    metric_columns,
    page_table,
    text_block,
)
from .report_facts import CHANCE, METRICS, OPERATING, ReportFacts
from .report_tables import MINUS, format_number
from .set_section import set_blocks
from .study_figures import (
    MAX_LINES,
    calibration_figure,
    curve_figure,
    forest_figure,
    history_figure,
    scatter_figure,
    survival_figure,
)

__all__ = ["report_sections"]

CALIBRATION = ("brier", "ece")
ATTENTION = {
    "entropy_ratio": "entropy (1: uniform)",
    "top_10_share": "mass of the top 10",
    "stability": "change between epochs (JSD)",
    "num_cases": "cases",
    "instance_auroc": "AUROC of instances",
    "center_auroc": "AUROC of the center prior",
    "difference": "difference",
    "instance_ap": "average precision",
    "center_ap": "average precision of the center prior",
    "pointing_game": "top instance is positive",
    "precision_at_recall_10": "precision at 10 % recall",
    "positive_mass": "mass on positive instances",
    "positive_fraction": "fraction of positive instances",
}
Section = dict[str, Any]


def report_sections(facts: ReportFacts) -> list[Section]:
    """Return the sections between the text and the table of cases: ``id``, ``title`` and ``blocks``; none is empty."""
    sections = [
        ("methods", "Methods and their values", _values(facts)),
        ("comparisons", "Paired comparisons", _comparisons(facts)),
        ("curves", "ROC and precision-recall curves", _curves(facts)),
        ("operating", "At the operating point", _operating(facts)),
        ("calibration", "Calibration", _calibration(facts)),
        ("survival", "Survival by risk", _survival(facts)),
        ("scatter", "Predicted and true values", _scatter(facts)),
        ("classes", "Classes", _classes(facts)),
        ("sites", "Sites", _groups(facts, "sites", "site")),
        ("clinical", "Clinical variables", clinical_blocks(facts)),
        ("learning", "Learning curves", _histories(facts)),
        ("attention", "Attention and localization", _attention(facts)),
        ("sets", "Sets of instances with a guarantee", set_blocks(facts)),
    ]
    built = [{"id": key, "title": title, "blocks": [*blocks]} for key, title, blocks in sections]
    return [section for section in built if section["blocks"]]


def _values(facts: ReportFacts) -> Iterable[Block]:
    keys = [facts.main, *(key for key in METRICS if key != facts.main and key not in (*OPERATING, "ece"))]
    columns = {"method": "method", "num_cases": "cases", **metric_columns(facts, keys)}
    yield page_table(method_rows(facts), columns, "Values with 95 % intervals")
    lines = [
        (name, found, [fold.get(facts.main) for fold in facts.finished[name].get("folds") or ()])
        for name in facts.finished
        if (found := facts.value(name))
    ]
    caption = "Values with 95 % intervals; small bars are the values of the folds, the dotted line is a guess"
    chance = CHANCE.get(facts.main)
    yield from figure_blocks([forest_figure("main", lines, facts.metric(facts.main), caption, chance)] if lines else [])
    settings = [
        {
            "method": name,
            "num_parameters": (facts.methods.get(name) or {}).get("num_parameters"),
            "settings": _settings(facts.methods.get(name) or {}),
            "chosen": _chosen(facts, name),
        }
        for name in facts.summaries
    ]
    heads = {"method": "method", "num_parameters": "parameters"}
    heads |= {"settings": "settings", "chosen": "chosen in each fold"}
    if any(row["settings"] or row["chosen"] for row in settings):
        yield page_table(settings, heads, "Networks and settings", "none recorded")


def _settings(method: Mapping[str, Any]) -> str:
    known = {key: value for key, value in (method.get("settings") or {}).items() if value is not None}
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in known.items())


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _chosen(facts: ReportFacts, name: str) -> str:
    """Return the settings that were chosen, with the number of folds if they differ."""
    rows = (facts.methods.get(name) or {}).get("chosen") or ()
    texts = [_settings({"settings": {k: v for k, v in row.items() if k not in ("fold", "repeat")}}) for row in rows]
    counts = Counter(text for text in texts if text)
    if len(counts) == 1:
        return f"{texts[0]} (all folds)" if len(texts) > 1 else texts[0]
    return "; ".join(f"{text} ({count} folds)".replace("(1 folds)", "(1 fold)") for text, count in counts.items())


def _comparisons(facts: ReportFacts) -> Iterable[Block]:
    rows: list[dict[str, Any]] = [
        {
            "pair": f"{row['a']} {MINUS} {row['b']}",
            "metric": facts.metric(str(row.get("metric", facts.main))),
            "difference": {**row, "value": row.get("difference")},
            "num_cases": row.get("num_cases"),
            "p": row.get("p"),
            "p_holm": row.get("p_holm"),
        }
        for row in facts.comparisons
    ]
    heads = {"pair": "methods", "metric": "metric", "num_cases": "cases", "difference": "difference", "p": "p"}
    heads |= {"p_holm": "p (Holm)"} if len(rows) > 1 else {}
    if rows:
        yield page_table(rows, heads, "Differences with 95 % intervals", "not computable from these predictions")
        yield text_block("A positive difference means that the first method has the higher value.")
        lines = [(row["pair"], row["difference"], ()) for row in rows if row["difference"]["value"] is not None]
        if 1 < len(lines) <= MAX_LINES and len({row["metric"] for row in rows}) == 1:
            label = f"difference in {rows[0]['metric']}"
            yield from figure_blocks([forest_figure("differences", lines, label, "Differences of the methods", 0.0)])


def _curves(facts: ReportFacts) -> Iterable[Block]:
    figures, of_classes = [], []
    for kind, x in (("roc", "fpr"), ("pr", "recall")):
        name = {"roc": "ROC curves", "pr": "Precision-recall curves"}[kind]
        metric = {"roc": "auroc", "pr": "auprc"}[kind]
        found = {m: s[kind] for m, s in facts.finished.items() if (s.get(kind) or {}).get(x)}
        if found:
            figures.append(curve_figure(kind, found, kind, name, _curve_text(facts, name, [*found], metric)))
        best = facts.finished.get(facts.best) or {}
        classes = {c: f for c, f in (best.get(f"{kind}_classes") or {}).items() if (f or {}).get(x)}
        if classes:
            caption = f"{name} of each class, {facts.best}"
            text = f"{caption}; their areas are in the table of classes."
            of_classes.append(curve_figure(f"{kind}-classes", classes, kind, caption, text))
    yield from figure_blocks([*figures, *of_classes])
    if figures or of_classes:
        yield text_block(
            "Curves are means over the folds; bands are 95 % intervals. Their points are in tables/curves.csv."
        )


def _curve_text(facts: ReportFacts, name: str, methods: Sequence[str], metric: str) -> str:
    values = [f"{m} {format_number((facts.value(m, metric) or {}).get('value'))}" for m in methods]
    noun = "method" if len(methods) == 1 else "methods"
    return f"{name} of {len(methods)} {noun}; {facts.metric(metric)}: {', '.join(values)}."


def _operating(facts: ReportFacts) -> Iterable[Block]:
    rows = [row | {"thresholds": _thresholds(facts.finished.get(row["method"]))} for row in method_rows(facts)]
    if any(row.get(key) for row in rows for key in OPERATING[:2]) or any(
        s.get("confusion") for s in facts.finished.values()
    ):
        columns = {"method": "method", **metric_columns(facts, OPERATING), "thresholds": "threshold"}
        yield page_table(rows, columns, "Values at the operating point with 95 % intervals")
    tables = []
    for name, summary in facts.finished.items():
        for label, matrix, names in _matrices(summary.get("confusion"), facts.task.class_names):
            caption = name if not label else f"{name}: {label}"
            tables.append({"caption": caption, "names": names, "rows": _shares(matrix)})
    if tables:
        yield {"kind": "confusion", "tables": tables}


def _thresholds(summary: Mapping[str, Any] | None) -> str:
    known = [
        t["threshold"] for t in (summary or {}).get("thresholds") or () if isinstance(t.get("threshold"), (int, float))
    ]
    if not known:
        return ""
    low, high = format_number(min(known)), format_number(max(known))
    return low if low == high else f"{low} to {high}"


def _matrices(found: Any, names: Sequence[str]) -> Iterable[tuple[str, Any, Sequence[str]]]:
    """Yield label, matrix and names of rows: one matrix of all classes, or one for each label."""
    if isinstance(found, Mapping):
        yield from ((label, matrix, ("absent", "present")) for label, matrix in found.items())
    elif found and isinstance(found[0][0], Sequence):
        yield from ((label, matrix, ("absent", "present")) for label, matrix in zip(names, found, strict=False))
    elif found:
        yield "", found, names if len(names) == len(found) else [str(i) for i in range(len(found))]


def _shares(matrix: Sequence[Sequence[float]]) -> list[list[dict[str, Any]]]:
    """Return counts with their share of the row; the sum of a row may be zero."""
    return [
        [{"count": format_number(n), "share": round(100 * n / sum(row)) if sum(row) else 0} for n in row]
        for row in matrix
    ]


def _calibration(facts: ReportFacts) -> Iterable[Block]:
    rows = [row | _ends(facts.finished.get(row["method"])) for row in method_rows(facts)]
    columns = {"method": "method", **metric_columns(facts, CALIBRATION), "slope": "slope", "intercept": "intercept"}
    if any(row.get(key) for row in rows for key in (*CALIBRATION, "slope")):
        yield page_table(rows, columns, f"Calibration of {_calibrated(facts)}, with 95 % intervals")
        yield text_block(
            "Perfect calibration has slope 1 and intercept 0; a slope below 1 means that predictions are too extreme."
        )
    found = [(i, n, s["calibration"]) for i, (n, s) in enumerate(facts.finished.items()) if _has_bins(s)]
    yield from figure_blocks(
        calibration_figure(f"calibration-{i}", calibration, name) for i, name, calibration in found
    )


def _calibrated(facts: ReportFacts) -> str:
    """Return of what the probabilities of the calibration are."""
    if facts.task.is_binary:
        return f"the probability of {facts.task.class_names[1]}"
    return "all labels" if facts.task.kind == "multilabel" else "the probability of the predicted class"


def _ends(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    found = (summary or {}).get("calibration") or {}
    return {key: found.get(key) for key in ("slope", "intercept")}


def _has_bins(summary: Mapping[str, Any]) -> bool:
    return bool((summary.get("calibration") or {}).get("bins"))


def _survival(facts: ReportFacts) -> Iterable[Block]:
    found = [(i, name, s["survival"]) for i, (name, s) in enumerate(facts.finished.items()) if _has_groups(s)]
    yield from figure_blocks(survival_figure(f"survival-{i}", survival, name) for i, name, survival in found)
    for _, name, survival in found:
        rows = [{"name": g["name"], **_at_risk(g)} for g in survival["groups"] if g.get("at_risk")]
        times = sorted({time for row in rows for time in row if isinstance(time, float)})
        heads: dict[Any, str] = {"name": "group", **{time: f"{time:g}" for time in times}}
        if times:
            yield page_table(rows, heads, f"Numbers at risk by time, {name}", "after the end of the curve")


def _has_groups(summary: Mapping[str, Any]) -> bool:
    return any(group.get("times") for group in (summary.get("survival") or {}).get("groups") or ())


def _at_risk(group: Mapping[str, Any]) -> dict[Any, Any]:
    return {float(time): int(number) for time, number in group["at_risk"]}


def _scatter(facts: ReportFacts) -> Iterable[Block]:
    found = [
        (i, n, s["scatter"]) for i, (n, s) in enumerate(facts.finished.items()) if (s.get("scatter") or {}).get("truth")
    ]
    yield from figure_blocks(scatter_figure(f"scatter-{i}", scatter, name, i) for i, name, scatter in found)


def _classes(facts: ReportFacts) -> Iterable[Block]:
    yield from _groups(facts, "classes", "label" if facts.task.kind == "multilabel" else "class")
    yield from _boundaries(facts)


def _groups(facts: ReportFacts, key: str, noun: str) -> Iterable[Block]:
    """Yield the table of the values of each class or site, and for sites their figure."""
    rows = [{"method": m, **row} for m, s in facts.finished.items() for row in s.get(key) or ()]
    if not rows or (key == "sites" and len({row.get("name") for row in rows}) < 2):
        return
    metrics = {k: text for k, text in METRICS.items() if any(k in row for row in rows)}
    columns = {"name": noun, "method": "method", "num_cases": "cases", "num_positive": "positive", **metrics}
    order = list(dict.fromkeys(row.get("name") for row in rows))
    rows.sort(key=lambda row: order.index(row.get("name")))
    yield page_table(rows, columns, f"Values of each {noun}", f"too few cases of this {noun}, or of one label only")
    lines = [(str(r["name"]), as_value(r.get(facts.main)), ()) for r in rows if r["method"] == facts.best]
    lines = [line for line in lines if line[1].get("value") is not None]
    if 1 < len(lines) <= MAX_LINES:
        caption = f"Values of each {noun}: {METRICS.get(facts.main, facts.main)} of {facts.best}"
        chance = CHANCE.get(facts.main)
        yield from figure_blocks([forest_figure(key, lines, METRICS.get(facts.main, facts.main), caption, chance)])


def _boundaries(facts: ReportFacts) -> Iterable[Block]:
    """Yield the table of ordered classes: how well cases above and below each boundary are told apart."""
    rows = [{"method": m, **row} for m, s in facts.finished.items() for row in s.get("boundaries") or ()]
    if rows:
        yield page_table(
            rows, {"name": "boundary", "method": "method", "auroc": "AUROC"}, "Boundaries of ordered classes"
        )


def _histories(facts: ReportFacts) -> Iterable[Block]:
    found = [(i, name, folds) for i, (name, folds) in enumerate(facts.histories.items()) if any(folds)]
    yield from figure_blocks(history_figure(f"learning-{i}", folds, name) for i, name, folds in found)


def _attention(facts: ReportFacts) -> Iterable[Block]:
    for key, caption in (
        ("attention", "Attention: means over the cases with 95 % intervals"),
        (
            "localization",
            "Localization of labeled instances by attention, beside the center prior, with 95 % intervals",
        ),
    ):
        rows = [{"method": name, **summary[key]} for name, summary in facts.finished.items() if summary.get(key)]
        names = dict.fromkeys(k for row in rows for k in row if k != "method")
        ordered = [*(k for k in ATTENTION if k in names), *(k for k in names if k not in ATTENTION)]
        columns = {"method": "method", **{k: ATTENTION.get(k, k.replace("_", " ")) for k in ordered}}
        if rows and names:
            yield page_table(rows, columns, caption)
    if any("stability" in (s.get("attention") or {}) for s in facts.finished.values()):
        yield text_block(
            "The change between epochs is the Jensen-Shannon divergence (0: equal, 0.69: on other instances) between "
            "the attention on a validation case after consecutive epochs. Read it beside the entropy: attention that "
            "stays uniform does not change."
        )
    lacking = [n for n, s in facts.finished.items() if not s.get("attention")]
    if lacking and len(lacking) < len(facts.finished):
        yield text_block(f"There is no attention of {join_words(lacking)}.")
