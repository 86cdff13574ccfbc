"""Figures of a report, told apart without colour: by line style, marker and place."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from monai_mil_ext.metrics import LocalizationCurves, center_scores, localization, localization_curves

__all__ = ["Answers", "curves_figure", "read_answers", "scan_figure", "spread_figure"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe, Ito
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
CENTER = "#666666"
HEIGHT = {"figsize": (10, 4.2), "layout": "constrained"}


class Answers(NamedTuple):
    """What was said of the slices of one scan.

    Attributes:
        case_id: of the scan.
        attention: (N,), of each slice.
        label: (N,), 0 or 1.
        position: (N,), mm.
        slice_index: (N,), place in the stack.
    """

    case_id: str
    attention: np.ndarray
    label: np.ndarray
    position: np.ndarray
    slice_index: np.ndarray

    @property
    def is_positive(self) -> bool:
        """Whether it has slices of both kinds."""
        return bool(self.label.any() and not self.label.all())

    @property
    def auroc(self) -> float:
        """Of its slices."""
        return localization(torch.from_numpy(self.attention), torch.from_numpy(self.label))["auroc"]


def read_answers(folder: Path) -> list[Answers]:
    """Scans of ``instances.csv``, those with labels of slices."""
    rows: dict[str, list[Mapping[str, str]]] = {}
    with (folder / "instances.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if "instance_label" in row:
                rows.setdefault(row["case_id"], []).append(row)
    return [_answers(case, own) for case, own in rows.items()]


def _answers(case: str, rows: Sequence[Mapping[str, str]]) -> Answers:
    place = [str(k) for k in range(len(rows))]  # where a file has no positions
    attention, position = (
        np.array([float(row.get(key, k)) for row, k in zip(rows, place, strict=True)])
        for key in ("attention", "position")
    )
    label, index = (
        np.array([int(row.get(key, k)) for row, k in zip(rows, place, strict=True)])
        for key in ("instance_label", "slice_index")
    )
    return Answers(case, attention, label, position, index)


def curves_figure(found: Mapping[str, Sequence[Answers]]) -> Figure:
    """ROC and precision-recall curves of slices, means over scans, with the centre of the scan."""
    figure = Figure(**HEIGHT)
    roc, precision = figure.subplots(1, 2)
    for i, (name, own) in enumerate(found.items()):
        curves = _curves([torch.from_numpy(one.attention) for one in own], own)
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.8}
        roc.plot(curves.share, curves.sensitivity, label=f"{name} ({np.mean([one.auroc for one in own]):.3f})", **look)
        precision.plot(curves.share[1:], curves.precision[1:], **look)
    first = next(iter(found.values()))
    curves = _curves([center_scores(len(one.label)) for one in first], first)
    roc.plot(curves.share, curves.sensitivity, color=CENTER, linewidth=1, label="centre of the scan")
    precision.plot(curves.share[1:], curves.precision[1:], color=CENTER, linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    precision.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    for axes in (roc, precision):
        axes.spines[["top", "right"]].set_visible(False)
    roc.legend(frameon=False, fontsize=8, loc="lower right", title="mean AUROC")
    return figure


def _curves(scores: Sequence[torch.Tensor], own: Sequence[Answers]) -> LocalizationCurves:
    return localization_curves(scores, [torch.from_numpy(one.label) for one in own])


def spread_figure(found: Mapping[str, Sequence[Answers]]) -> Figure:
    """Slice AUROC of every scan, a row of dots a method, its quartiles as a box."""
    figure = Figure(figsize=(10, 1 + 0.6 * len(found)), layout="constrained")
    axes = figure.subplots()
    values = [np.array([one.auroc for one in own]) for own in found.values()]
    rows = np.arange(len(values))[::-1]
    axes.boxplot(
        values, positions=rows, orientation="horizontal", widths=0.5, showfliers=False, medianprops={"color": "black"}
    )
    rng = np.random.default_rng(0)
    for i, (row, own) in enumerate(zip(rows, values, strict=True)):
        jitter = rng.uniform(-0.18, 0.18, len(own))
        axes.plot(own, row + jitter, ".", color=COLOURS[i % len(COLOURS)], alpha=0.6, markersize=5)
    axes.axvline(0.5, color=CENTER, linestyle=":", linewidth=1)
    axes.set_yticks(rows, list(found))
    axes.set(xlabel="slice AUROC of a positive test scan", xlim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scan_figure(one: Answers, title: str) -> Figure:
    """Attention along the axis of a scan, its positive slices shaded."""
    figure = Figure(figsize=(10, 2.2), layout="constrained")
    axes = figure.subplots()
    step = float(np.median(np.abs(np.diff(one.position)))) if len(one.position) > 1 else 1.0
    for place in one.position[one.label > 0]:
        axes.axvspan(place - step / 2, place + step / 2, color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.plot(one.position, one.attention, color=COLOURS[1], marker=".", linewidth=1.2)
    axes.set(xlabel="position / mm", ylabel="attention", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
