"""The picture of a scan's answer: which slices the network looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_mil_ext.utils import check_positive

__all__ = ["plot_slice_scores"]

ATTENTION, REFERENCE, QUIET = "#D55E00", "#0072B2", "#666666"  # told apart by colour-blind readers, and in grey
Array = np.ndarray[Any, Any]


def plot_slice_scores(
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None = None,
    top_k: int = 4,
    title: str = "",
) -> Figure:
    """Draw the top slices as images, the stack from the side, and attention along the axis.

    Args:
        attention: (N,), weights of the slices, summing to one.
        position: (N,), mm along the slice normal, ascending.
        slices: (N, h, w), the images in [0, 1].
        reference: (N, h, w), a mask of what should be found; its outline and its slices are drawn.
        top_k: how many slices to show, highest attention first; at most N.
        title: one line above all.

    Raises:
        ValueError: when the arrays do not have one N, or ``top_k`` is not positive.
    """
    check_positive(top_k=top_k)
    sizes = {len(attention), len(position), len(slices)} | ({len(reference)} if reference is not None else set())
    if len(sizes) > 1:
        raise ValueError(f"`attention`, `position`, `slices` and `reference` must have one length, got {sizes}.")
    top = np.argsort(-attention, kind="stable")[:top_k]
    figure = Figure(figsize=(2.1 * max(len(top), 4), 6.4), layout="constrained")
    grid = figure.add_gridspec(3, len(top), height_ratios=[2.1, 1.1, 1.7])
    for rank, i in enumerate(top):
        found = None if reference is None else reference[i]
        _draw_slice(figure.add_subplot(grid[0, rank]), slices[i], found, f"{rank + 1}.  {position[i]:.1f} mm")
    curve = figure.add_subplot(grid[2, :])
    side = figure.add_subplot(grid[1, :], sharex=curve)
    _draw_side(side, slices, position, reference)
    _draw_curve(curve, attention, position, top)
    if reference is not None and reference.any():
        _shade(curve, position, np.any(reference, axis=(1, 2)))
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.text(0.995, 0.005, "research use only", ha="right", va="bottom", fontsize=7, color=QUIET)
    return figure


def _draw_slice(axes: Axes, image: Array, reference: Array | None, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    if reference is not None and reference.any():
        axes.contour(reference > 0, levels=[0.5], colors=[REFERENCE], linewidths=1.2)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _draw_side(axes: Axes, slices: Array, position: Array, reference: Array | None) -> None:
    """Draw the middle row of every slice: the stack seen from the front, slice axis to the right."""
    row = slices.shape[1] // 2
    if reference is not None and reference.any():
        row = int(np.flatnonzero(np.any(reference, axis=(0, 2))).mean())
    edges = _edges(position)
    axes.pcolormesh(edges, np.arange(slices.shape[2] + 1), slices[:, row].T, cmap="gray", vmin=0, vmax=1)
    if reference is not None and reference[:, row].any() and len(position) > 1:
        columns = np.arange(slices.shape[2]) + 0.5
        axes.contour(position, columns, reference[:, row].T > 0, levels=[0.5], colors=[REFERENCE], linewidths=1.2)
    axes.set_ylabel("front view", fontsize=8)
    axes.set_yticks([])
    axes.tick_params(labelbottom=False)


def _draw_curve(axes: Axes, attention: Array, position: Array, top: Array) -> None:
    axes.plot(position, attention, color=ATTENTION, marker=".", markersize=4, linewidth=1.4, label="attention")
    axes.plot(position[top], attention[top], "v", color="black", markersize=6, label="slices above")
    for rank, i in enumerate(top):
        axes.annotate(
            str(rank + 1), (position[i], attention[i]), (0, 6), textcoords="offset points", ha="center", size=8
        )
    axes.axhline(1 / len(attention), color=QUIET, linestyle=":", linewidth=1, label="uniform")
    total = attention.sum()
    mean = float((position * attention).sum() / total)
    sd = float(np.sqrt(((position - mean) ** 2 * attention).sum() / total))
    if sd > 0:
        normal = np.exp(-((position - mean) ** 2) / (2 * sd**2))
        label = f"its normal ({mean:.0f} ± {sd:.0f} mm)"
        axes.plot(position, normal / normal.sum(), color="black", linestyle="--", linewidth=1, label=label)
    axes.set_ylim(0, float(attention.max()) * 1.18)
    axes.set_xlabel("position along the slice normal / mm")
    axes.set_ylabel("attention")
    axes.spines[["top", "right"]].set_visible(False)


def _shade(axes: Axes, position: Array, positive: Array) -> None:
    edges = _edges(position)
    label: str | None = "reference"
    for i in np.flatnonzero(positive):
        axes.axvspan(edges[i], edges[i + 1], color=REFERENCE, alpha=0.18, linewidth=0, label=label)
        label = None


def _edges(position: Array) -> Array:
    """Borders (N + 1,) halfway between slices; a single slice is one mm thick."""
    if len(position) == 1:
        return np.array([position[0] - 0.5, position[0] + 0.5])
    middle = (position[1:] + position[:-1]) / 2
    return np.concatenate([[2 * position[0] - middle[0]], middle, [2 * position[-1] - middle[-1]]])
