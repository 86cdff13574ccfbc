"""Galleries of tiles and cells, ordered by attention."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.data.slides.heatmap_files import LARGEST_RATIO
from monai_mil_ext.utils import check_name, check_positive

from ._style import new_figure, save_figure, sign
from .relative_attention import attention_ratio, is_nearly_even, ratio_colors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_cell_gallery",
    "plot_tile_montage",
    "write_cell_gallery",
    "write_tile_montage",
]

Array = NDArray[Any]
Images = NDArray[np.uint8]
COLUMNS = 8  # of tiles and of cells
SMALLEST_RATIO = 0.01  # smaller ratios to uniform attention are drawn as "< 0.01": their order means nothing


def plot_tile_montage(
    top: Images,
    bottom: Images,
    top_ratios: NDArray[np.float64],
    bottom_ratios: NDArray[np.float64],
    title: str = "",
    note: str = "",
) -> Figure:
    """Plot tiles with the ratio of their attention to uniform attention, those with the most attention first.

    The ratio, :math:`N a` for attention a in a bag of N tiles, stands above each tile, and its frame has the color of
    the ratio in the heat map.

    Args:
        top: tiles (n, t, t, 3) with the most attention.
        bottom: tiles (m, t, t, 3) with the least attention; may be empty.
        top_ratios: ratios (n,) of ``top``.
        bottom_ratios: ratios (m,) of ``bottom``.
        title: title of the figure.
        note: small line below the figure, such as the model.

    Returns:
        The figure.

    Raises:
        ValueError: if tiles and ratios differ in number, or ``top`` is empty.
    """
    if (len(top), len(bottom)) != (len(top_ratios), len(bottom_ratios)):
        raise ValueError(
            f"`top_ratios` and `bottom_ratios` must be one for each tile, got {len(top_ratios)} and "
            f"{len(bottom_ratios)} for {len(top)} and {len(bottom)}."
        )
    check_positive(top=len(top))
    groups = [("most", top, top_ratios), ("least", bottom, bottom_ratios)]
    rows = [
        (f"{name} attention" if start == 0 else "", tiles[start : start + COLUMNS], ratios[start : start + COLUMNS])
        for name, tiles, ratios in groups
        for start in range(0, len(tiles), COLUMNS)
    ]
    columns = min(COLUMNS, max(len(top), len(bottom)))
    figure = new_figure(figsize=(max(4.0, 1.35 * columns), 0.7 + 1.7 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, (name, tiles, ratios) in zip(axes, rows, strict=True):
        for ax in row_axes[len(tiles) :]:
            ax.set_axis_off()
        if name:
            row_axes[0].set_title(f"{name}, times uniform", loc="left", fontsize=9, pad=16)
        for ax, tile, ratio, color in zip(row_axes, tiles, ratios, ratio_colors(ratios), strict=False):
            ax.imshow(tile)
            ax.text(0.5, 1.03, _format_ratio(ratio), transform=ax.transAxes, ha="center", va="bottom", fontsize=7)
            _frame(ax, color)
    return sign(figure, title, note)


def write_tile_montage(
    folder: str | os.PathLike[str],
    case_id: str,
    top: Images,
    bottom: Images,
    top_ratios: NDArray[np.float64],
    bottom_ratios: NDArray[np.float64],
    title: str = "",
    note: str = "",
) -> Path:
    """Write the figure of :py:func:`plot_tile_montage` atomically as ``<case_id>_tiles.png``.

    The title is the case ID unless ``title`` is given.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``case_id`` is not a valid file name, or as in :py:func:`plot_tile_montage`.
    """
    check_name(case_id=case_id)
    figure = plot_tile_montage(top, bottom, top_ratios, bottom_ratios, title or case_id, note)
    return save_figure(figure, Path(folder) / f"{case_id}_tiles.png")


def plot_cell_gallery(
    cells: Array,
    attention: Array,
    names: Sequence[str] | None = None,
    most: int = 16,
    least: int = 8,
    title: str = "",
) -> Figure:
    """Plot the cells with the most attention and, below them, those with the least.

    The number above a cell is the ratio of its attention to uniform attention, :math:`N a`: 1 means uniform attention.
    The color of its frame shows the same ratio, from 1/4 to 4 as in the heat map of a slide. A bag of at most ``most``
    cells is shown completely. The line below counts all cells of the bag by their ratio.

    Args:
        cells: images (N, C, h, w) in [0, 1] with one or three channels.
        attention: attention weights (N,) that sum to 1.
        names: names of the cells, drawn below them.
        most: number of cells with the most attention.
        least: number of cells with the least attention; no cell is shown twice.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: if the arrays differ in length, ``cells`` has another shape, or ``most`` is not positive.
    """
    check_positive(most=most)
    sizes = {len(cells), len(attention), len(cells if names is None else names)}
    if len(sizes) > 1:
        raise ValueError(f"`cells`, `attention` and `names` must have one length, got {sorted(sizes)}.")
    if cells.ndim != 4 or cells.shape[1] not in (1, 3) or not len(cells):
        raise ValueError(f"`cells` must be (N, 1, h, w) or (N, 3, h, w) with a cell, got {tuple(cells.shape)}.")
    order = np.argsort(-np.asarray(attention), kind="stable")
    rest = order[most:][-least:] if least > 0 else order[:0]
    rows = [
        (group, indices[start : start + COLUMNS])
        for group, indices in (("most", order[:most]), ("least", rest))
        for start in range(0, len(indices), COLUMNS)
    ]
    columns = min(COLUMNS, max(len(indices) for _, indices in rows))
    figure = new_figure(figsize=(max(4.5, 1.25 * columns), 0.7 + 1.62 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    ratio = attention_ratio(attention)
    heat = ratio_colors(ratio)
    labeled: set[str] = set()
    for row_axes, (group, indices) in zip(axes, rows, strict=True):
        for ax in row_axes[len(indices) :]:
            ax.set_axis_off()
        for ax, i in zip(row_axes, indices, strict=False):
            _draw(ax, cells[i], ratio[i], heat[i], None if names is None else names[i])
        if group not in labeled:
            row_axes[0].set_ylabel(f"{group} attention", fontsize=8)
        labeled.add(group)
    return sign(figure, title, _counts(ratio, min(most, len(order)) + len(rest)))


def write_cell_gallery(
    folder: str | os.PathLike[str],
    case_id: str,
    cells: Array,
    attention: Array,
    names: Sequence[str] | None = None,
) -> Path:
    """Write the figure of :py:func:`plot_cell_gallery` atomically as ``<case_id>_cells.png``.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``case_id`` is not a valid file name, or as in :py:func:`plot_cell_gallery`.
    """
    check_name(case_id=case_id)
    figure = plot_cell_gallery(cells, attention, names, title=case_id)
    return save_figure(figure, Path(folder) / f"{case_id}_cells.png")


def _counts(ratio: NDArray[np.float64], shown: int) -> str:
    """Return how many cells there are, and how many of them have how much attention."""
    high, middle = int((ratio >= LARGEST_RATIO).sum()), int(((ratio >= 1) & (ratio < LARGEST_RATIO)).sum())
    parts = [f"{high} with at least {LARGEST_RATIO:g} × uniform attention", f"{middle} with 1 to {LARGEST_RATIO:g}"]
    even = "; attention is nearly even: the order of cells says little" if is_nearly_even(ratio) else ""
    return f"{shown} of {len(ratio)} cells; of all, {', '.join(parts)}, {len(ratio) - high - middle} with less{even}"


def _draw(axes: Any, cell: Array, ratio: float, color: Any, name: str | None) -> None:
    image = np.moveaxis(np.clip(cell, 0, 1), 0, 2)
    axes.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)
    axes.set_title(_format_ratio(ratio), fontsize=8, pad=3)
    _frame(axes, color)
    if name is not None:
        axes.set_xlabel(name if len(name) <= 18 else f"…{name[-17:]}", fontsize=6)


def _format_ratio(ratio: float) -> str:
    """Return a ratio with the digits that titles of slides have."""
    return f"{ratio:.3g}" if ratio >= SMALLEST_RATIO else f"< {SMALLEST_RATIO}"


def _frame(axes: Any, color: Any) -> None:
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color=color / 255, linewidth=3)
