"""Figures of a report, whose curves differ in line style as well as color."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from monai_mil_ext.metrics import LocalizationCurves, center_scores, localization, localization_curves

__all__ = ["ScanScores", "curves_figure", "read_scans", "scan_figure", "spread_figure"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe, Ito
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
CENTER = "#666666"
HEIGHT = {"figsize": (10, 4.2), "layout": "constrained"}


class ScanScores(NamedTuple):
    """Scores and labels of the slices of one scan.

    Attributes:
        case_id: name of the scan.
        attention: (N,), attention of each slice.
        label: (N,), 0 or 1.
        position: (N,), mm.
        slice_index: (N,), position in the stack.
    """

    case_id: str
    attention: np.ndarray
    label: np.ndarray
    position: np.ndarray
    slice_index: np.ndarray

    @property
    def is_positive(self) -> bool:
        """Flag of scans with positive and negative slices."""
        return bool(self.label.any() and not self.label.all())

    @property
    def auroc(self) -> float:
        """AUROC of the slices."""
        return localization(torch.from_numpy(self.attention), torch.from_numpy(self.label))["auroc"]


def read_scans(folder: Path) -> list[ScanScores]:
    """Read the scans of ``instances.csv`` that have slice labels."""
    rows: dict[str, list[Mapping[str, str]]] = {}
    with (folder / "instances.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row.get("instance_label"):
                rows.setdefault(row["case_id"], []).append(row)
    return [_parse_scan(case, of_scan) for case, of_scan in rows.items()]


def _parse_scan(case: str, rows: Sequence[Mapping[str, str]]) -> ScanScores:
    numbers = [str(k) for k in range(len(rows))]  # used as positions if a file has none
    attention, position = (
        np.array([float(row.get(key, k)) for row, k in zip(rows, numbers, strict=True)])
        for key in ("attention", "position")
    )
    label, index = (
        np.array([int(row.get(key, k)) for row, k in zip(rows, numbers, strict=True)])
        for key in ("instance_label", "slice_index")
    )
    return ScanScores(case, attention, label, position, index)


def curves_figure(scans: Mapping[str, Sequence[ScanScores]]) -> Figure:
    """Draw ROC and precision-recall curves of slices, averaged over scans, and those of the center of the scan."""
    figure = Figure(**HEIGHT)
    roc, precision = figure.subplots(1, 2)
    for i, (name, of_method) in enumerate(scans.items()):
        curves = _curves([torch.from_numpy(scan.attention) for scan in of_method], of_method)
        look = {"color": COLORS[i % len(COLORS)], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.8}
        mean = np.mean([scan.auroc for scan in of_method])
        roc.plot(curves.share, curves.sensitivity, label=f"{name} ({mean:.3f})", **look)
        precision.plot(curves.share[1:], curves.precision[1:], **look)
    first = next(iter(scans.values()))
    curves = _curves([center_scores(len(scan.label)) for scan in first], first)
    roc.plot(curves.share, curves.sensitivity, color=CENTER, linewidth=1, label="center of the scan")
    precision.plot(curves.share[1:], curves.precision[1:], color=CENTER, linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    precision.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    for axes in (roc, precision):
        axes.spines[["top", "right"]].set_visible(False)
    roc.legend(frameon=False, fontsize=8, loc="lower right", title="mean AUROC")
    return figure


def _curves(scores: Sequence[torch.Tensor], scans: Sequence[ScanScores]) -> LocalizationCurves:
    return localization_curves(scores, [torch.from_numpy(scan.label) for scan in scans])


def spread_figure(scans: Mapping[str, Sequence[ScanScores]]) -> Figure:
    """Draw the slice AUROC of every scan as dots, one row per method, with the quartiles as a box."""
    figure = Figure(figsize=(10, 1 + 0.6 * len(scans)), layout="constrained")
    axes = figure.subplots()
    values = [np.array([scan.auroc for scan in of_method]) for of_method in scans.values()]
    rows = np.arange(len(values))[::-1]
    axes.boxplot(
        values, positions=rows, orientation="horizontal", widths=0.5, showfliers=False, medianprops={"color": "black"}
    )
    rng = np.random.default_rng(0)
    for i, (row, of_method) in enumerate(zip(rows, values, strict=True)):
        jitter = rng.uniform(-0.18, 0.18, len(of_method))
        axes.plot(of_method, row + jitter, ".", color=COLORS[i % len(COLORS)], alpha=0.6, markersize=5)
    axes.axvline(0.5, color=CENTER, linestyle=":", linewidth=1)
    axes.set_yticks(rows, list(scans))
    axes.set(xlabel="slice AUROC of a positive test scan", xlim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scan_figure(scan: ScanScores, title: str) -> Figure:
    """Draw attention along the axis of a scan, with its positive slices shaded."""
    figure = Figure(figsize=(10, 2.2), layout="constrained")
    axes = figure.subplots()
    step = float(np.median(np.abs(np.diff(scan.position)))) if len(scan.position) > 1 else 1.0
    for position in scan.position[scan.label > 0]:
        axes.axvspan(position - step / 2, position + step / 2, color=COLORS[0], alpha=0.18, linewidth=0)
    axes.plot(scan.position, scan.attention, color=COLORS[1], marker=".", linewidth=1.2)
    axes.set(xlabel="position / mm", ylabel="attention", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
