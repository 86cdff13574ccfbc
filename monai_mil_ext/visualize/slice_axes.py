"""Drawing of slices and of views of their stack on axes, with letters, a scale in mm and outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from monai_mil_ext.utils import optional_dependency

from ._style import HEAT, REFERENCE, SECONDARY
from .relative_attention import ratio_norm
from .slice_display import Sides, SliceDisplay
from .stack_views import StackView, scale_length, slice_edges, slice_spans

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_slice", "draw_strip", "draw_view", "rank_labels", "shade_slices"]

Array = np.ndarray[Any, Any]
matplotlib = optional_dependency("figures", "matplotlib")
with_stroke = optional_dependency("figures", "matplotlib.patheffects", "withStroke")

RIM: dict[str, Any] = {"linewidth": 2.4, "foreground": "white", "alpha": 0.8}
OUTLINE: dict[str, Any] = {"levels": [0.5], "colors": [REFERENCE], "linewidths": 1.2}
LETTER: dict[str, Any] = {"color": "#ffe08a", "fontsize": 9, "fontweight": "bold"}
GAP: dict[str, Any] = {"facecolor": "white", "edgecolor": SECONDARY, "hatch": "////", "linewidth": 0.6}  # no slice
CLOSE = 0.035  # distance of slices, as a part of the stack, within which ranks share a label
NARROW = 0.1  # sides of a view whose letters and scale would overlap
STRIP = (0.02, 0.09)  # begin and end of the heat beside a view, as parts of its width


def draw_slice(axes: Axes, image: Array, mask: Array | None, display: SliceDisplay, title: str = "") -> None:
    """Draw a slice (h, w) in true proportion, with the outline of a mask (h, w)."""
    height, width = display.pixel_mm or (1.0, 1.0)
    extent = (0.0, image.shape[1] * width, image.shape[0] * height, 0.0)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", extent=extent)
    _draw_outline(axes, mask, extent)
    _draw_letters(axes, display.sides)
    if display.pixel_mm:
        _draw_scale(axes, extent)
    axes.set_title(title, fontsize=8)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=SECONDARY, linewidth=0.6)  # else a white slice has no edge


def draw_view(axes: Axes, view: StackView, ratio: Array, position: Array, marks: Sequence[int] = ()) -> Any:
    """Draw a view of the stack with the heat of its slices beside it, which is returned, and ranks of ``marks``."""
    colors = matplotlib.colormaps["gray"].with_extremes(bad=(0, 0, 0, 0))
    aspect: Literal["equal", "auto"] = "equal" if view.is_to_scale else "auto"
    image = np.ma.masked_invalid(view.image)
    axes.imshow(image, cmap=colors, vmin=0, vmax=1, extent=view.extent, aspect=aspect, interpolation="nearest")
    _draw_outline(axes, view.outline, view.extent)
    if is_wide := not view.is_to_scale or min(view.size) > NARROW * max(view.size):
        _draw_letters(axes, view.sides)
    if view.is_to_scale and is_wide:
        _draw_scale(axes, view.extent)
    across = view.size[0] if view.is_upright else view.size[1]
    heat = draw_strip(axes, ratio, position, (across * (1 + STRIP[0]), across * (1 + STRIP[1])), view.is_upright)
    _draw_ranks(axes, position[list(marks)], across, view.is_upright, view.size[1 if view.is_upright else 0])
    left, right, bottom, top = view.extent
    if view.is_upright:
        axes.set(xlim=(0, across * (1 + STRIP[1])), ylim=(bottom, top), xticks=[])
    else:
        axes.set(xlim=(left, right), ylim=(across * (1 + STRIP[1]), 0), yticks=[])
    if view.is_to_scale:
        axes.yaxis.set_label_text("mm" if view.is_upright else "", fontsize=8)
        axes.xaxis.set_label_text("" if view.is_upright else "mm", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[:].set_visible(False)
    axes.fill_between(view.extent[:2], *view.extent[2:], zorder=-1, **GAP)
    axes.set_title(view.name, fontsize=9)
    return heat


def draw_strip(axes: Axes, ratio: Array, position: Array, sides: tuple[float, float], is_upright: bool) -> Any:
    """Draw the ratios (N,) of the slices as a strip of heat along their positions, on the fixed scale."""
    edges, index = slice_edges(position)
    values = np.ma.masked_array(np.asarray(ratio)[index], index < 0)
    if is_upright:
        return axes.pcolormesh(sides, edges, values[:, None], cmap=HEAT, norm=ratio_norm())
    return axes.pcolormesh(edges, sides, values[None], cmap=HEAT, norm=ratio_norm())


def shade_slices(axes: Axes, position: Array, positive: Array) -> None:
    """Shade the slices of the reference along a horizontal axis in mm."""
    label: str | None = "reference"
    spans = slice_spans(position)
    for i in np.flatnonzero(positive):
        axes.axvspan(*spans[i], facecolor=REFERENCE, alpha=0.18, linewidth=0, label=label)
        label = None


def rank_labels(places: Array, length: float) -> list[tuple[float, str, list[int]]]:
    """Return positions, labels and indices of ranked slices; those that are close share one, so that none overlap.

    Example:
        >>> rank_labels(np.array([50.0, 20.0, 51.0]), length=100)
        [(20.0, '2', [1]), (50.5, '1 3', [0, 2])]
    """
    groups: list[list[int]] = []
    for k in np.argsort(places, kind="stable").tolist():
        if groups and places[k] - places[groups[-1][-1]] < CLOSE * length:
            groups[-1].append(k)
        else:
            groups.append([k])
    return [
        (float(places[group].mean()), " ".join(str(k + 1) for k in sorted(group)), sorted(group)) for group in groups
    ]


def _draw_ranks(axes: Axes, places: Array, across: float, is_upright: bool, length: float) -> None:
    """Write ranks beside the upright strip of heat, or into the lying one, below which the axis in mm is."""
    outline = [with_stroke(linewidth=1.6, foreground="white")]
    for place, text, _ in rank_labels(places, length):
        point = (across * (1 + STRIP[1]), place) if is_upright else (place, across * (1 + sum(STRIP) / 2))
        where: dict[str, Any] = {"xytext": (3 if is_upright else 0, 0), "ha": "left" if is_upright else "center"}
        where |= {"textcoords": "offset points", "annotation_clip": False, "va": "center"}
        axes.annotate(text, point, size=7, path_effects=outline, **where)


def _draw_outline(axes: Axes, mask: Array | None, extent: tuple[float, float, float, float]) -> None:
    if mask is None or not mask.any() or min(mask.shape) < 2:
        return
    left, right, bottom, top = extent
    columns = left + (np.arange(mask.shape[1]) + 0.5) * (right - left) / mask.shape[1]
    rows = top + (np.arange(mask.shape[0]) + 0.5) * (bottom - top) / mask.shape[0]
    axes.contour(columns, rows, mask > 0, **OUTLINE).set_path_effects([with_stroke(**RIM)])


def _draw_letters(axes: Axes, sides: Sides) -> None:
    """Write the letters of the patient's sides into the margins of the only image of ``axes``."""
    left, right, bottom, top = axes.images[0].get_extent()
    x, y = (left + right) / 2, (top + bottom) / 2
    dx, dy = 0.03 * (right - left), 0.03 * (bottom - top)
    places = [(left + dx, y, "left", "center"), (right - dx, y, "right", "center")]
    places += [(x, top + dy, "center", "top"), (x, bottom - dy, "center", "bottom")]
    shadow = [with_stroke(linewidth=1.6, foreground="black")]
    for letter, (h, v, ha, va) in zip(sides, places, strict=True):
        if letter:
            axes.text(h, v, letter, ha=ha, va=va, path_effects=shadow, **LETTER)


def _draw_scale(axes: Axes, extent: tuple[float, float, float, float]) -> None:
    """Draw a scale bar in the lower left corner."""
    left, right, bottom, top = extent
    length = scale_length(min(abs(right - left), 2 * abs(top - bottom)))
    x, y = left + 0.04 * (right - left), bottom + 0.05 * (top - bottom)
    shadow = [with_stroke(linewidth=3.2, foreground="black")]
    end = x + np.sign(right - left) * length
    axes.plot([x, end], [y, y], color="white", linewidth=1.6, path_effects=shadow, label="_scale", clip_on=True)
    text = [with_stroke(linewidth=1.6, foreground="black")]
    axes.annotate(
        f"{length} mm",
        (x, y),
        (0, 2),
        textcoords="offset points",
        color="white",
        size=6,
        path_effects=text,
        va="bottom",
    )
