"""Pictures of attention as a whole: how concentrated it is, and how far it moves while a network learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["plot_attention_mass", "plot_attention_stability"]

# colours of Okabe and Ito, which colour-blind readers tell apart; in grey the lines differ by dashes and marks
STYLES: list[dict[str, Any]] = [
    {"color": color, "linestyle": line, "marker": marker, "markersize": 4.5, "linewidth": 1.6}
    for color, line, marker in [
        ("#D55E00", "-", "o"),
        ("#0072B2", "--", "s"),
        ("#009E73", "-.", "^"),
        ("#CC79A7", (0, (4, 1, 1, 1, 1, 1)), "D"),
        ("#000000", (0, (1, 1)), "v"),
        ("#E69F00", (0, (6, 2)), "P"),
    ]
]
UNIFORM: dict[str, Any] = {"color": "#666666", "linestyle": ":", "linewidth": 1.4}
Curve = Mapping[str, Sequence[float]]


def plot_attention_mass(panels: Mapping[str, Mapping[str, Curve]], title: str = "") -> Figure:
    """Draw what share of the attention the k first instances hold: a panel a class of bags, a line a network.

    Args:
        panels: of each class of bags, of each network, ``mass`` (K,) and ``uniform`` (K,) of a
            :py:class:`monai_mil_ext.metrics.MassCurve`.
        title: one line above all.

    Raises:
        ValueError: when there is no panel, one is empty or has more than six lines.
    """
    _check("panels", panels)
    for name, curves in panels.items():
        _check(f"panels[{name!r}]", curves)
    figure, axes = _figure(len(panels), title)
    for ax, (name, curves) in zip(axes, panels.items(), strict=True):
        for style, (label, curve) in zip(STYLES, curves.items(), strict=False):
            ax.plot(np.arange(1, len(curve["mass"]) + 1), curve["mass"], label=label, **style)
        uniform = next(iter(curves.values()))["uniform"]
        ax.plot(np.arange(1, len(uniform) + 1), uniform, label="uniform", **UNIFORM)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("instances, most attention first")
        ax.set_ylim(0, 1.03)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("share of the attention")
    axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def plot_attention_stability(runs: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> Figure:
    """Draw how far attention moves from epoch to epoch and how near it is to uniform: read both together.

    Args:
        runs: of each training the ``epochs`` of what ``AttentionStabilityHandler`` writes as JSON: ``epoch``, ``jsd``
            (nats, or None) and ``uniformity``.
        title: one line above all.

    Raises:
        ValueError: when there is no run, or more than six.
    """
    _check("runs", runs)
    figure, axes = _figure(2, title)
    for ax, key, name in zip(
        axes, ("jsd", "uniformity"), ("JSD from the epoch before (nats)", "entropy / log N"), strict=True
    ):
        for style, (label, epochs) in zip(STYLES, runs.items(), strict=False):
            known = [(one["epoch"], one[key]) for one in epochs if one[key] is not None]
            ax.plot(*np.array(known, dtype=float).reshape(-1, 2).T, label=label, **style)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].axhline(1, label="uniform", **UNIFORM)
    axes[1].set_ylim(0, 1.05)
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _check(name: str, lines: Mapping[str, Any]) -> None:
    if not 1 <= len(lines) <= len(STYLES):
        raise ValueError(f"`{name}` must have 1 to {len(STYLES)} entries, got {len(lines)}.")


def _figure(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.2 * columns, 3.6), layout=ConstrainedLayoutEngine(rect=(0, 0.04, 1, 0.96)))
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.suptitle(title, fontsize=11)
    figure.text(0.995, 0.002, RESEARCH_USE, ha="right", va="bottom", fontsize=7, color="#666666")
    return figure, axes
