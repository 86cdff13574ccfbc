"""Figure of a slide with a heat map of its scores."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray

from monai_mil_ext.data import Thumbnail
from monai_mil_ext.data.slides.heatmap_files import DIVERGING, signed_limit
from monai_mil_ext.utils import check_name, optional_dependency

from ._style import ATTENTION, HEAT, new_figure, save_figure, sign
from .relative_attention import ratio_norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_slide_overlay", "tile_squares", "write_slide_overlay"]

collections = optional_dependency("figures", "matplotlib.collections")
patheffects = optional_dependency("figures", "matplotlib.patheffects")
UNITS = {
    "none": "score",
    "ratio": "attention, × uniform",
    "percentile": "percentile of the tiles",
    "signed": "contribution to the logit",
}
TICKS = [1 / 4, 1 / 2, 1, 2, 4]  # of ratios
TICK_LABELS = ["≤ 1/4", "1/2", "1", "2", "≥ 4"]
BAR = 0.25  # largest part of the width of a slide that its scale bar takes


def plot_slide_overlay(
    thumbnail: Thumbnail,
    heatmap: MetaTensor,
    channel: int = 0,
    title: str = "",
    note: str = "",
    marked: Mapping[str, NDArray[np.float64]] | None = None,
) -> Figure:
    """Plot a slide next to the same slide with its heat map overlaid; regions without tiles stay uncovered.

    A map with the scaling ``"ratio"`` has the same colors for every slide, from 1/4 to 4 times uniform attention; one
    with ``"signed"`` has diverging colors, with 0 in the middle. The slide has a scale bar if the map states its
    resolution.

    Args:
        thumbnail: thumbnail of the slide, see :py:class:`monai_mil_ext.data.SlideFile`.
        heatmap: heat map (A, h, w) of :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`, NaN outside of tiles.
        channel: index of the channel to draw.
        title: title of the figure.
        note: small line below the figure, such as the model.
        marked: squares (K, 4, 2) of tiles to outline on the slide, such as those of :py:func:`tile_squares`, by their
            name in the legend.

    Returns:
        The figure, whose axes count pixels of level 0.

    Raises:
        ValueError: if ``heatmap`` is not such a heat map.
    """
    if heatmap.ndim != 3 or not 0 <= channel < len(heatmap) or "downsample" not in getattr(heatmap, "meta", {}):
        got = tuple(heatmap.shape)
        raise ValueError(f"`heatmap` must be a map (A, h, w) of a slide with channel {channel}, got shape {got}.")
    extent = _extent(thumbnail.image.shape, thumbnail.downsample, thumbnail.origin)
    left, right, lower, upper = extent
    figure = new_figure(figsize=(11, 0.9 + 5 * min(2.0, (lower - upper) / (right - left))), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax in axes:
        ax.imshow(thumbnail.image, extent=extent)
        ax.set_axis_off()
    _draw_heat(figure, axes, heatmap, channel)
    axes[1].set(xlim=(left, right), ylim=(lower, upper))
    downsample, mpp = heatmap.meta["downsample"], heatmap.meta.get("mpp")
    if mpp:
        _draw_scale_bar(axes[0], extent, mpp / downsample)
    if marked:
        _draw_squares(axes[0], marked)
    return sign(figure, title, note)


def tile_squares(corners: ArrayLike, edge: float) -> NDArray[np.float64]:
    """Return the squares (K, 4, 2) of tiles with the upper left ``corners`` (K, 2), in pixels of level 0.

    Example:
        >>> tile_squares([[64, 0]], 64).tolist()
        [[[64.0, 0.0], [128.0, 0.0], [128.0, 64.0], [64.0, 64.0]]]
    """
    places = np.asarray(corners, dtype=np.float64).reshape(-1, 1, 2)
    return places + edge * np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def write_slide_overlay(
    folder: str | os.PathLike[str],
    case_id: str,
    thumbnail: Thumbnail,
    heatmap: MetaTensor,
    channel: int = 0,
    title: str = "",
    note: str = "",
    marked: Mapping[str, NDArray[np.float64]] | None = None,
) -> Path:
    """Write the figure of :py:func:`plot_slide_overlay` atomically as ``<case_id>.png``.

    The title is the case ID unless ``title`` is given.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``case_id`` is not a valid file name, or ``heatmap`` is not a heat map of a slide.
    """
    check_name(case_id=case_id)
    figure = plot_slide_overlay(thumbnail, heatmap, channel, title or case_id, note, marked)
    return save_figure(figure, Path(folder) / f"{case_id}.png", dpi=150)


def _extent(shape: tuple[int, ...], downsample: float, origin: Any) -> tuple[float, float, float, float]:
    """Return left, right, lower and upper edge of an image in pixels of level 0."""
    x, y = map(float, origin)
    return x, x + shape[1] * downsample, y + shape[0] * downsample, y


def _draw_heat(figure: Figure, axes: Any, heatmap: MetaTensor, channel: int) -> None:
    heat = np.ma.masked_invalid(heatmap[channel].as_tensor().cpu().numpy())
    scaling, bounds = heatmap.meta.get("scaling", "none"), heatmap.meta.get("bounds", (0, 0))
    options: dict[str, Any] = {"extent": _extent(heat.shape, heatmap.meta["downsample"], bounds[:2])}
    if scaling == "ratio":
        options["norm"] = ratio_norm()
    if scaling == "signed":
        limit = signed_limit(heat.filled(np.nan))
        options |= {"vmin": -limit, "vmax": limit}
    overlay = axes[1].imshow(
        heat, cmap=DIVERGING if scaling == "signed" else HEAT, alpha=0.6, interpolation="nearest", **options
    )
    bar = figure.colorbar(overlay, ax=axes, shrink=0.8, label=UNITS.get(scaling, "score"))
    if scaling == "ratio":
        bar.set_ticks(TICKS, labels=TICK_LABELS)
        bar.ax.minorticks_off()


def _draw_squares(axes: Axes, marked: Mapping[str, NDArray[np.float64]]) -> None:
    """Outline tiles, and name them below the slide."""
    for name, squares in marked.items():
        axes.add_collection(
            collections.PolyCollection(squares, facecolors="none", edgecolors=ATTENTION, linewidths=1.2, label=name)
        )
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.01), fontsize=8, frameon=False, borderaxespad=0)


def _draw_scale_bar(axes: Axes, extent: tuple[float, float, float, float], mpp: float) -> None:
    """Draw a bar of a round length in mm or um in the lower left corner of a slide."""
    left, right, lower, upper = extent
    length = _round_length(BAR * (right - left) * mpp)
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    x, y = left + 0.03 * (right - left), lower - 0.03 * (lower - upper)
    outline = [patheffects.withStroke(linewidth=5, foreground="white")]
    axes.plot([x, x + length / mpp], [y, y], color="black", linewidth=2.5, solid_capstyle="butt", path_effects=outline)
    outline = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    place: dict[str, Any] = {"xytext": (0, 4), "textcoords": "offset points", "ha": "left", "va": "bottom"}
    axes.annotate(label, (x, y), fontsize=8, path_effects=outline, **place)


def _round_length(largest: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above ``largest``."""
    power = 10.0 ** math.floor(math.log10(largest))
    return max(step * power for step in (1, 2, 5) if step * power <= largest * (1 + 1e-9))
