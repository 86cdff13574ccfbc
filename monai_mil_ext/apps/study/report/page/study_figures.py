"""Figures of the report of a study, as inline SVG that follows the colors of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from monai_mil_ext.utils import optional_dependency

from .report_tables import MINUS, format_interval, format_number, format_p

__all__ = [
    "MAX_LINES",
    "calibration_figure",
    "curve_figure",
    "drawing",
    "forest_figure",
    "history_figure",
    "scatter_figure",
    "short",
    "survival_figure",
]

matplotlib = optional_dependency("study", "matplotlib")
figure_module = optional_dependency("study", "matplotlib.figure")

# Okabe-Ito; in gray, methods differ by dashes and markers
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
TEXT, SOFT, LINE = "#16181d", "#5b6270", "#c8ccd4"
VARIABLES = {TEXT: "--text", SOFT: "--soft", LINE: "--line", **{c: f"--s{i}" for i, c in enumerate(SERIES)}}
SIZE = (4.4, 3.4)  # inches; the page scales figures
MAX_LINES = 40  # of a figure with a line for each value
MAX_POINTS = 1500  # more are drawn as pixels
BANDS = 3  # most methods whose bands can be told apart
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.parse_math": False,  # names of classes and methods are no formulas
    "svg.fonttype": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "text.color": TEXT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.7,
}
Block = dict[str, Any]


@contextmanager
def drawing(name: str, caption: str, text: str, size: tuple[float, float] = SIZE) -> Iterator[tuple[Any, Block]]:
    """Yield axes and the block of the page that gets their figure at the end.

    Args:
        name: unique name of the figure.
        caption: title below it.
        text: what the figure shows in words, for those who don't see it.
        size: width and height in inches.
    """
    block: Block = {"kind": "figure", "name": name, "caption": caption, "text": text, "svg": ""}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that a font lacks: the reader's browser has others
        figure = figure_module.Figure(figsize=size, layout="constrained")
        yield figure.subplots(), block
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    block["svg"] = _inline(buffer.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """Return an SVG for a page: with its colors, its font, and names that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(f": {color}", f": var({variable})")
    return re.sub(
        r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'<svg aria-hidden="true" focusable="false" \1', svg
    )


def short(text: str, length: int = 26) -> str:
    """Return a name that fits into a legend, which would leave out one that begins with an underscore.

    Example:
        >>> short("a" * 40, 8), len(short("_x"))
        ('aaaaaaa…', 3)
    """
    text = " ".join(str(text).split())
    text = text if len(text) <= length else f"{text[: length - 1]}…"
    return f"\u200b{text}" if text.startswith("_") else text


def _look(index: int) -> dict[str, Any]:
    return {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[index % len(DASHES)]}


def _legend(axes: Any, **options: Any) -> None:
    """Draw the legend below the axes, where it hides no curve."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 1 if max(map(len, labels)) > 22 else 2
        axes.figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=3, **options)


def curve_figure(name: str, curves: Mapping[str, Mapping[str, Any]], kind: str, caption: str, text: str) -> Block:
    """Draw ROC or precision-recall curves by name, with their bands if there are few.

    Args:
        name: unique name of the figure.
        curves: curves by name, see the summary of a method, with ``"prevalence"`` where known.
        kind: ``"roc"`` or ``"pr"``.
        caption: title below the figure.
        text: what it shows in words.
    """
    x, y = ("fpr", "tpr") if kind == "roc" else ("recall", "precision")
    size = (SIZE[0], 3.3 + 0.2 * (len(curves) + 1) // 2 + 0.3)
    with drawing(name, caption, text, size) as (axes, block):
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        for i, (label, curve) in enumerate(curves.items()):
            step = {"drawstyle": "steps-post"} if kind == "roc" and len(curve[x]) < 20 else {}
            axes.plot(_floats(curve[x]), _floats(curve[y]), label=short(label, 40), **_look(i), **step)
            if curve.get("low") and curve.get("high") and len(curves) <= BANDS:
                low, high = _floats(curve["low"]), _floats(curve["high"])
                axes.fill_between(_floats(curve[x]), low, high, color=SERIES[i % 6], alpha=0.15, linewidth=0)
        labels = (
            (f"1 {MINUS} specificity", "sensitivity") if kind == "roc" else ("recall (sensitivity)", "precision (PPV)")
        )
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=labels[0], ylabel=labels[1])
        axes.set_aspect("equal")
        axes.grid()
        _legend(axes)
    return block


def _floats(values: Sequence[Any]) -> Any:
    return np.array([np.nan if v is None else float(v) for v in values])


def forest_figure(
    name: str,
    rows: Sequence[tuple[str, Mapping[str, Any], Sequence[Any]]],
    label: str,
    caption: str,
    chance: float | None = None,
    ratio: bool = False,
) -> Block:
    """Draw values with intervals one below the other.

    Args:
        name: unique name of the figure.
        rows: for each line its name, its value with interval, and further points, such as the values of the folds.
        label: name of the metric.
        caption: title below the figure.
        chance: value of a guess, where a line is drawn.
        ratio: whether values are ratios, drawn on a logarithmic axis.
    """
    parts = [f"{row} {format_interval(found)}" for row, found, _ in rows]
    text = f"{label}, values with 95 % intervals: " + "; ".join(parts) + "."
    with drawing(name, caption, text, (SIZE[0], 0.75 + 0.32 * len(rows))) as (axes, block):
        axes.set_xscale("log" if ratio else "linear")
        if chance is not None:
            axes.axvline(chance, color=SOFT, linewidth=0.9, linestyle=":")
        for i, (_, found, points) in enumerate(rows):
            value, low, high = (np.nan if found.get(k) is None else found[k] for k in ("value", "low", "high"))
            known = [p for p in points if p is not None]
            axes.plot(known, [i] * len(known), "|", color=SOFT, markersize=8, markeredgewidth=0.9)
            axes.plot([low, high], [i, i], color=SERIES[0], linewidth=2, solid_capstyle="butt")
            axes.plot([value], [i], "o", color=SERIES[0], markersize=6)
        axes.set_yticks(range(len(rows)), [short(row, 36) for row, _, _ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=label)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        if ratio:
            _plain_ratios(axes)
    return block


def _plain_ratios(axes: Any) -> None:
    """Label a logarithmic axis by plain numbers."""
    low, high = axes.get_xlim()
    span = high / low
    steps = (1, 1.5, 2, 3, 5, 7) if span < 5 else (1, 2, 5) if span < 30 else (1, 3) if span < 300 else (1,)
    ticks = [t for t in (step * 10.0**power for power in range(-4, 5) for step in steps) if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xticks([], minor=True)


def calibration_figure(name: str, found: Mapping[str, Any], label: str) -> Block:
    """Draw observed frequencies against predicted probabilities of a method."""
    bins = [b for b in found["bins"] if b.get("observed") is not None and b.get("predicted") is not None]
    parts = [f"{format_number(b['predicted'])} → {format_number(b['observed'])}" for b in bins]
    text = f"Predicted probability and observed frequency of {label}, {len(bins)} bins: " + "; ".join(parts) + "."
    slope = f"{label}: slope {_text(found.get('slope'))}, intercept {_text(found.get('intercept'))}"
    with drawing(name, slope, text, (SIZE[0], 3.6)) as (axes, block):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        x, y = _floats([b["predicted"] for b in bins]), _floats([b["observed"] for b in bins])
        ends = [np.nan_to_num(_floats([b.get(k) for b in bins]), nan=0) for k in ("low", "high")]
        if any(b.get("low") is not None for b in bins):
            axes.vlines(x, ends[0], ends[1], color=SERIES[0], linewidth=1.4)
        axes.plot(x, y, "o-", color=SERIES[0], markersize=5, linewidth=1.2)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="observed frequency")
        axes.set_aspect("equal")
        axes.grid()
    return block


def _text(found: Any) -> str:
    return format_interval(found) if isinstance(found, Mapping) else format_number(found)


def survival_figure(name: str, found: Mapping[str, Any], label: str) -> Block:
    """Draw Kaplan-Meier curves of groups by risk of a method."""
    groups = [group for group in found["groups"] if group.get("times")]
    p, ratio = format_p(found.get("log_rank_p")), _text(found.get("hazard_ratio"))
    p = p if p.startswith("<") else f"= {p}"
    ends = [f"{g['name']} {format_number(g['survival'][-1])} at {format_number(g['times'][-1])}" for g in groups]
    text = f"Kaplan-Meier curves by risk of {label}; survival at the end of each curve: " + "; ".join(ends) + "."
    caption = f"{label}: log-rank p {p}; hazard ratio {ratio} per SD of the risk"
    with drawing(name, caption, text, (SIZE[0], 3.5)) as (axes, block):
        for i, group in enumerate(groups):
            times, survival = _floats(group["times"]), _floats(group["survival"])
            axes.plot(times, survival, drawstyle="steps-post", label=short(group["name"]), **_look(i))
            if group.get("low") and group.get("high"):
                low, high = _floats(group["low"]), _floats(group["high"])
                axes.fill_between(times, low, high, step="post", color=SERIES[i % 6], alpha=0.15, linewidth=0)
        axes.set(ylim=(-0.01, 1.02), xlabel="time", ylabel="survival")
        axes.set_xlim(left=0)
        axes.grid()
        _legend(axes)
    return block


def scatter_figure(name: str, found: Mapping[str, Any], label: str, index: int = 0) -> Block:
    """Draw predictions against labels of a regression."""
    x, y = _floats(found["truth"]), _floats(found["predicted"])
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)] if np.isfinite(both).any() else np.array([0.0, 1.0])
    text = f"Predicted against true value of {len(x)} cases by {label}; each case is a row of the table of cases."
    with drawing(name, label, text, (SIZE[0], 3.6)) as (axes, block):
        axes.plot(*[[both.min(), both.max()]] * 2, color=SOFT, linewidth=0.8, linestyle=":")
        look = {"color": SERIES[index % 6], "marker": MARKERS[index % 6], "alpha": 0.65}
        axes.scatter(x, y, s=16, linewidths=0, rasterized=len(x) > MAX_POINTS, **look)
        axes.set(xlabel="true value", ylabel="predicted value")
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid()
    return block


def history_figure(name: str, folds: Sequence[Sequence[Mapping[str, Any]]], label: str) -> Block:
    """Draw losses of all folds of a method by epoch."""
    known = [fold for fold in folds if fold]
    best = [_best_epoch(fold) for fold in known]
    found = [f"{epoch:g}" for epoch in best if epoch is not None]
    text = (
        f"Losses of {label} by epoch, {len(known)} folds; epochs with the lowest validation loss: {', '.join(found)}."
    )
    with drawing(name, label, text, (SIZE[0], 3.3)) as (axes, block):
        for key, words, look in (
            ("train_loss", "training", {"color": SERIES[0], "linestyle": "-"}),
            ("val_loss", "validation", {"color": SERIES[1], "linestyle": DASHES[1]}),
        ):
            for i, fold in enumerate(known):
                x, y = _floats([row.get("epoch") for row in fold]), _floats([row.get(key) for row in fold])
                if np.isfinite(y).any():
                    axes.plot(
                        x, y, label=f"{words}, a line a fold" if i == 0 else None, linewidth=1.1, alpha=0.8, **look
                    )
        points = [(row["epoch"], row["val_loss"]) for fold, epoch in zip(known, best, strict=True) for row in fold
                  if epoch is not None and row.get("epoch") == epoch]  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=SERIES[1], markersize=4, label="lowest validation loss")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.grid()
        _legend(axes)
    return block


def _best_epoch(fold: Sequence[Mapping[str, Any]]) -> Any:
    known = [(row["val_loss"], row["epoch"]) for row in fold if row.get("val_loss") is not None]
    return min(known, key=lambda pair: (pair[0], -pair[1]))[1] if known else None
