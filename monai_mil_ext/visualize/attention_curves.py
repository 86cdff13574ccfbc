"""Figures of attention concentration and of attention stability during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_mil_ext.utils import optional_dependency

from ._style import SECONDARY, new_figure, sign

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_attention_mass", "plot_attention_stability"]

ConstrainedLayoutEngine = optional_dependency("figures", "matplotlib.layout_engine", "ConstrainedLayoutEngine")
MaxNLocator = optional_dependency("figures", "matplotlib.ticker", "MaxNLocator")

# colors of Okabe and Ito, distinguishable by color-blind readers; in grayscale the lines differ by dashes and markers
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
UNIFORM: dict[str, Any] = {"color": SECONDARY, "linestyle": ":", "linewidth": 1.4}
Curve = Mapping[str, Sequence[float]]


def plot_attention_mass(panels: Mapping[str, Mapping[str, Curve]], title: str = "") -> Figure:
    """Plot the attention mass of the top k instances, one panel per class of bags and one line per network.

    Args:
        panels: for each class of bags and each network, ``mass`` (K,) and ``uniform`` (K,) of a
            :py:class:`monai_mil_ext.metrics.MassCurve`.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no panel, or a panel is empty or has more than six lines.
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
        ax.set_xlabel("instances by decreasing attention")
        ax.set_ylim(0, 1.03)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("attention mass")
    axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def plot_attention_stability(runs: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> Figure:
    """Plot how far attention moves between epochs next to its normalized entropy.

    Read both together: attention that is uniform is stable and carries no information.

    Args:
        runs: for each training run, the ``epochs`` of the JSON file of ``AttentionStabilityHandler``: ``epoch``,
            ``jsd`` (nats, or None) and ``uniformity``.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no run or more than six.
    """
    _check("runs", runs)
    figure, axes = _figure(2, title)
    for ax, key, name in zip(
        axes, ("jsd", "uniformity"), ("JSD to the previous epoch (nats)", "entropy / log N"), strict=True
    ):
        for style, (label, epochs) in zip(STYLES, runs.items(), strict=False):
            points = [(epoch["epoch"], epoch[key]) for epoch in epochs if epoch[key] is not None]
            ax.plot(*np.array(points, dtype=float).reshape(-1, 2).T, label=label, **style)
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
    figure = new_figure(figsize=(4.2 * columns, 3.6), layout=ConstrainedLayoutEngine(rect=(0, 0.04, 1, 0.96)))
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    return sign(figure, title), axes
