"""Figures of the attention over the slices of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_positive, optional_dependency

from ._style import ATTENTION, SECONDARY, new_figure, sign
from .relative_attention import EVEN_NOTE, attention_ratio, is_nearly_even, ratio_text
from .slice_axes import draw_slice, draw_strip, draw_view, rank_labels, shade_slices
from .slice_display import SliceDisplay
from .stack_views import StackView, stack_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_slices", "plot_slice_scores", "shown_slices"]

ConstrainedLayoutEngine = optional_dependency("figures", "matplotlib.layout_engine", "ConstrainedLayoutEngine")

Array = np.ndarray[Any, Any]
WIDTH = 8.4  # of a figure in inches, at least
SLICE_HEIGHTS = (0.8, 2.6)  # lowest and highest of the slices, in inches
VIEW_HEIGHTS = (1.3, 3.6)  # of the views
TITLE_GAP = 0.12  # below the title
SET_MARK: dict[str, Any] = {"color": "#009E73", "linestyle": "", "marker": "^", "markersize": 6, "clip_on": False}
TICKS = {0.25: "≤ ¼", 0.5: "½", 1.0: "1", 2.0: "2", 4.0: "≥ 4"}  # of the color scale


def plot_slice_scores(
    attention: Array,
    position: Array,
    slices: Array | None = None,
    reference: Array | None = None,
    top_k: int = 4,
    title: str = "",
    note: str = "",
    display: SliceDisplay | None = None,
    sets: Mapping[str, Sequence[int]] | None = None,
) -> Figure:
    """Plot slices, the stack from its front and its side, and attention along the axis as heat and as a curve.

    Colors show attention relative to uniform attention on one logarithmic scale for all figures, from a quarter to
    four times. The slices are those with the most attention or, if attention is nearly even
    (:py:func:`monai_mil_ext.visualize.is_nearly_even`), so that ranks say little, evenly spaced ones.

    Args:
        attention: attention weights (N,) of the slices, which sum to 1.
        position: positions (N,) along the slice normal in mm, ascending.
        slices: images (N, h, w) in [0, 1]; without them only heat and curve are drawn.
        reference: reference masks (N, h, w), whose outlines and slices are drawn, or labels (N,).
        top_k: number of slices to show; at most N.
        title: title of the figure.
        note: small line below the figure, such as the model.
        display: letters, millimeters and numbers; without it, views are not to scale.
        sets: indices of slices to mark below the curve, by their label in the legend.

    Returns:
        The figure.

    Raises:
        ValueError: if the arrays differ in length, or ``top_k`` is not positive.
    """
    check_slices(attention, position, slices, reference, top_k)
    display = display or SliceDisplay()
    slices, reference = display.crop(slices), display.crop(reference)
    shown, is_ranked = shown_slices(attention, top_k)
    marks = shown if is_ranked else shown[:0]
    if slices is None:
        figure = _new_figure(WIDTH, 3.4, title)
        _draw_axis(figure, attention, position, reference, marks, sets)
        return sign(figure, title, note)
    views = stack_views(slices, position, display, reference)
    heights = _heights(views, slices.shape[1:], display)
    figure = _new_figure(max(2.1 * len(shown), WIDTH), sum(heights) + 0.5, title)
    grid = figure.add_gridspec(3, 1, height_ratios=heights)
    strip, middle, axis = (figure.add_subfigure(grid[row]) for row in range(3))
    _draw_top(strip, attention, position, slices, reference, shown, display)
    _draw_views(middle, views, attention_ratio(attention), position, marks)
    _draw_axis(axis, attention, position, reference, marks, sets)
    return sign(figure, title, "; ".join(filter(None, [display.window, note])))


def shown_slices(attention: Array, top_k: int) -> tuple[NDArray[np.intp], bool]:
    """Return the indices of the slices to show, and whether they are ranked.

    They are the ``top_k`` with the most attention, ties in slice order. If attention is nearly even they are spread
    evenly over the stack, in its order.
    """
    count = min(top_k, len(attention))
    if is_nearly_even(attention):
        return ((np.arange(count) + 0.5) * len(attention) / count).astype(np.intp), False
    return np.argsort(-attention, kind="stable")[:count], True


def check_slices(
    attention: Array, position: Array, slices: Array | None, reference: Array | None, top_k: int = 1
) -> None:
    """Raise ``ValueError`` if the arrays differ in length, or ``top_k`` is not positive."""
    check_positive(top_k=top_k)
    sizes = {len(array) for array in (attention, position, slices, reference) if array is not None}
    if len(sizes) > 1:
        raise ValueError(f"`attention`, `position`, `slices` and `reference` must have one length, got {sizes}.")


def _new_figure(width: float, height: float, title: str) -> Figure:
    """Return a figure with room between its title and what is below."""
    height += TITLE_GAP * bool(title)
    rect = (0, 0, 1, 1 - TITLE_GAP * bool(title) / height)
    return new_figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=rect))


def _heights(views: tuple[StackView, StackView], size: tuple[int, int], display: SliceDisplay) -> list[float]:
    """Return the heights of slices, views and curve in inches."""
    mm = display.pixel_mm or (1.0, 1.0)
    slices = float(np.clip(2.0 * size[0] * mm[0] / (size[1] * mm[1]), *SLICE_HEIGHTS))
    wide, high = sum(view.size[0] for view in views), max(view.size[1] for view in views)
    fitting = 0.74 * WIDTH * high / wide if views[0].is_to_scale else 2.0
    return [slices + 0.62, float(np.clip(fitting, *VIEW_HEIGHTS)) + 0.4, 2.7]


def _draw_top(
    figure: Any,
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None,
    shown: Array,
    display: SliceDisplay,
) -> None:
    """Draw the slices with the most attention, or evenly spaced ones."""
    masks = reference if reference is not None and reference.ndim == 3 else None
    grid = figure.add_gridspec(1, max(len(shown), 4))
    ratio, is_ranked = attention_ratio(attention), not is_nearly_even(attention)
    for rank, i in enumerate(shown, 1):
        first = f"{rank}.  {display.name(i, len(slices))}" if is_ranked else display.name(i, len(slices))
        text = f"{first}\n{display.place(i, position[i])}\n{ratio_text(ratio[i])} × uniform"
        draw_slice(figure.add_subplot(grid[0, rank - 1]), slices[i], None if masks is None else masks[i], display, text)


def _draw_views(
    figure: Any, views: tuple[StackView, StackView], ratio: Array, position: Array, marks: NDArray[np.intp]
) -> None:
    """Draw both views at one scale, and the color scale."""
    grid = figure.add_gridspec(1, 2, width_ratios=[view.size[0] for view in views])
    for column, view in enumerate(views):
        axes = figure.add_subplot(grid[0, column])
        heat = draw_view(axes, view, ratio, position, marks.tolist())
    bar = figure.colorbar(heat, ax=figure.axes, fraction=0.04, pad=0.03, aspect=18)
    bar.set_label("attention, × uniform", fontsize=8)
    bar.set_ticks(list(TICKS), labels=list(TICKS.values()), fontsize=7)
    bar.ax.minorticks_off()


def _draw_axis(
    figure: Any,
    attention: Array,
    position: Array,
    reference: Array | None,
    marks: Array,
    sets: Mapping[str, Sequence[int]] | None,
) -> None:
    """Draw heat and curve over a common axis in mm."""
    grid = figure.add_gridspec(2, 1, height_ratios=[0.16, 1.7])
    curve = figure.add_subplot(grid[1])
    heat = figure.add_subplot(grid[0], sharex=curve)
    draw_strip(heat, attention_ratio(attention), position, (0, 1), is_upright=False)
    heat.set_ylabel("heat", fontsize=8, rotation=0, ha="right", va="center")
    heat.set_yticks([])
    heat.tick_params(labelbottom=False)
    if is_nearly_even(attention):
        heat.set_title(EVEN_NOTE, fontsize=9, fontweight="bold")
    _draw_curve(curve, attention, position, marks)
    for label, chosen in (sets or {}).items():
        bottom, across = [0.015] * len(chosen), curve.get_xaxis_transform()
        curve.plot(position[list(chosen)], bottom, label=label, transform=across, **SET_MARK)
    if reference is not None and reference.any():
        shade_slices(curve, position, np.any(reference.reshape(len(reference), -1), axis=1))
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=8)


def _draw_curve(axes: Axes, attention: Array, position: Array, marks: Array) -> None:
    axes.plot(position, attention, color=ATTENTION, marker=".", markersize=4, linewidth=1.4, label="attention")
    if len(marks):
        axes.plot(position[marks], attention[marks], "v", color="black", markersize=6, label="slices above")
    for place, text, ranks in rank_labels(position[marks], float(np.ptp(position))):
        height = float(attention[marks[ranks]].max())  # above all marks that share the label
        axes.annotate(text, (place, height), (0, 6), textcoords="offset points", ha="center", size=8)
    uniform = float(attention.sum()) / len(attention)
    axes.axhline(uniform, color=SECONDARY, linestyle=":", linewidth=1, label="uniform")
    bell, label = _bell(attention, position)
    if bell is not None:
        axes.plot(position, bell, color="black", linestyle="--", linewidth=1, label=label)
    highest = max(float(attention.max()), 2 * uniform, 0.0 if bell is None else float(bell.max()))
    axes.set_ylim(0, highest * 1.18 or 1)
    axes.set_xlabel("position along the slice normal / mm", fontsize=9)
    axes.set_ylabel("attention", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines["top"].set_visible(False)
    if uniform > 0:
        scales: Any = (lambda a: a / uniform, lambda r: r * uniform)
        ratio = axes.secondary_yaxis("right", functions=scales)
        ratio.set_ylabel("× uniform", fontsize=9)
        ratio.tick_params(labelsize=8)


def _bell(attention: Array, position: Array) -> tuple[Array | None, str]:
    """Return the normal distribution of mean and deviation of the positions, and its label."""
    total = attention.sum()
    if not total > 0:
        return None, ""
    mean = float((position * attention).sum() / total)
    sd = float(np.sqrt(((position - mean) ** 2 * attention).sum() / total))
    if not sd > 0:
        return None, ""
    bell = np.exp(-((position - mean) ** 2) / (2 * sd**2))
    return bell / bell.sum(), f"bell of the same mean and deviation ({mean:.0f} ± {sd:.0f} mm)"
