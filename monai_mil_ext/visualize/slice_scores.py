"""Figures of the attention over the slices of a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_positive, optional_dependency

from ._style import ATTENTION, HEAT, REFERENCE, SECONDARY, new_figure, sign

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_axis", "plot_slice", "plot_slice_scores", "rank_slices"]

with_stroke = optional_dependency("figures", "matplotlib.patheffects", "withStroke")

RIM: dict[str, Any] = {"linewidth": 2.4, "foreground": "white", "alpha": 0.8}
OUTLINE: dict[str, Any] = {"levels": [0.5], "colors": [REFERENCE], "linewidths": 1.2}
Array = np.ndarray[Any, Any]


def plot_slice_scores(
    attention: Array,
    position: Array,
    slices: Array | None = None,
    reference: Array | None = None,
    top_k: int = 4,
    title: str = "",
    note: str = "",
) -> Figure:
    """Plot the top slices, the stack from the side, and attention along the axis as a heat map and a curve.

    Args:
        attention: attention weights (N,) of the slices, which sum to 1.
        position: positions (N,) along the slice normal in mm, ascending.
        slices: images (N, h, w) in [0, 1]; without them only heat map and curve are drawn.
        reference: reference masks (N, h, w), whose outlines and slices are drawn, or labels (N,).
        top_k: number of slices to show, highest attention first; at most N.
        title: title of the figure.
        note: small line below the figure, such as the model.

    Returns:
        The figure.

    Raises:
        ValueError: if the arrays differ in length, or ``top_k`` is not positive.
    """
    top = rank_slices(attention, position, slices, reference, top_k)
    if slices is None:
        return plot_axis(attention, position, None, reference, top, title, note)
    figure = new_figure(figsize=(2.1 * max(len(top), 4), 6.9), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[2.1, 3.3])
    strip, axis = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    masks = reference if reference is not None and reference.ndim == 3 else None
    grid = strip.add_gridspec(1, len(top))
    for rank, i in enumerate(top):
        mask = None if masks is None else masks[i]
        _draw_slice(strip.add_subplot(grid[0, rank]), slices[i], mask, f"{rank + 1}.  {position[i]:.1f} mm")
    _draw_axis(axis, attention, position, slices, reference, top)
    return sign(figure, title, note)


def rank_slices(
    attention: Array, position: Array, slices: Array | None, reference: Array | None, top_k: int
) -> NDArray[np.intp]:
    """Check the arrays and return the indices of the ``top_k`` slices with the most attention, ties in slice order."""
    check_positive(top_k=top_k)
    sizes = {len(array) for array in (attention, position, slices, reference) if array is not None}
    if len(sizes) > 1:
        raise ValueError(f"`attention`, `position`, `slices` and `reference` must have one length, got {sizes}.")
    return np.argsort(-attention, kind="stable")[:top_k]


def plot_axis(
    attention: Array,
    position: Array,
    slices: Array | None,
    reference: Array | None,
    top: NDArray[np.intp],
    title: str = "",
    note: str = "",
) -> Figure:
    """Plot side view, heat map and curve, the lower part of :py:func:`plot_slice_scores`."""
    figure = new_figure(figsize=(8.4, 4.2 if slices is not None else 3.2), layout="constrained")
    _draw_axis(figure, attention, position, slices, reference, top)
    return sign(figure, title, note)


def plot_slice(image: Array, reference: Array | None) -> Figure:
    """Plot a slice (h, w) and, if ``reference`` is a mask, its outline."""
    figure = new_figure(figsize=(2.2, 2.2 * image.shape[0] / image.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    _draw_slice(axes, image, reference if reference is not None and reference.ndim == 2 else None)
    return figure


def _draw_axis(
    figure: Any, attention: Array, position: Array, slices: Array | None, reference: Array | None, top: Array
) -> None:
    """Draw side view, heat map and curve over a common axis in mm."""
    rows = [1.1, 0.22, 1.7] if slices is not None else [0.22, 1.7]
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows)
    curve = figure.add_subplot(grid[-1])
    heat = figure.add_subplot(grid[-2], sharex=curve)
    masks = reference if reference is not None and reference.ndim == 3 else None
    if slices is not None:
        _draw_side(figure.add_subplot(grid[0], sharex=curve), slices, position, masks)
    heat.pcolormesh(_edges(position), [0, 1], attention[None], cmap=HEAT, vmin=0)
    heat.set_ylabel("heat", fontsize=8, rotation=0, ha="right", va="center")
    heat.set_yticks([])
    heat.tick_params(labelbottom=False)
    _draw_curve(curve, attention, position, top)
    if reference is not None and reference.any():
        _shade(curve, position, np.any(reference.reshape(len(reference), -1), axis=1))
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=8)


def _draw_slice(axes: Axes, image: Array, reference: Array | None, title: str = "") -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    if reference is not None and reference.any():
        axes.contour(reference > 0, **OUTLINE).set_path_effects([with_stroke(**RIM)])
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _draw_side(axes: Axes, slices: Array, position: Array, reference: Array | None) -> None:
    """Draw the middle row of every slice: the stack seen from the front, with the slice axis to the right."""
    row = slices.shape[1] // 2
    if reference is not None and reference.any():
        row = int(np.flatnonzero(np.any(reference, axis=(0, 2))).mean())
    edges = _edges(position)
    axes.pcolormesh(edges, np.arange(slices.shape[2] + 1), slices[:, row].T, cmap="gray", vmin=0, vmax=1)
    if reference is not None and reference[:, row].any() and len(position) > 1:
        columns = np.arange(slices.shape[2]) + 0.5
        axes.contour(position, columns, reference[:, row].T > 0, **OUTLINE).set_path_effects([with_stroke(**RIM)])
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
    axes.axhline(1 / len(attention), color=SECONDARY, linestyle=":", linewidth=1, label="uniform")
    total = attention.sum()
    mean = float((position * attention).sum() / total)
    sd = float(np.sqrt(((position - mean) ** 2 * attention).sum() / total))
    highest = float(attention.max())
    if sd > 0:
        normal = np.exp(-((position - mean) ** 2) / (2 * sd**2))
        normal /= normal.sum()
        highest = max(highest, float(normal.max()))
        label = f"its normal ({mean:.0f} ± {sd:.0f} mm)"
        axes.plot(position, normal, color="black", linestyle="--", linewidth=1, label=label)
    axes.set_ylim(0, highest * 1.18)
    axes.set_xlabel("position along the slice normal / mm")
    axes.set_ylabel("attention")
    axes.spines[["top", "right"]].set_visible(False)


def _shade(axes: Axes, position: Array, positive: Array) -> None:
    edges = _edges(position)
    label: str | None = "reference"
    for i in np.flatnonzero(positive):
        axes.axvspan(edges[i], edges[i + 1], facecolor=REFERENCE, alpha=0.18, linewidth=0, label=label)
        label = None


def _edges(position: Array) -> Array:
    """Return the borders (N + 1,) halfway between slices; a single slice gets a thickness of 1 mm."""
    if len(position) == 1:
        return np.array([position[0] - 0.5, position[0] + 0.5])
    middle = (position[1:] + position[:-1]) / 2
    return np.concatenate([[2 * position[0] - middle[0]], middle, [2 * position[-1] - middle[-1]]])
