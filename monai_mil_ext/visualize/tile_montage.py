"""Montage of the tiles of a slide with the highest and the lowest scores."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_mil_ext.utils import check_name, check_positive

from ._style import save_figure, sign

__all__ = ["plot_tile_montage", "write_tile_montage"]

COLUMNS = 8
Images = NDArray[np.uint8]


def plot_tile_montage(
    top: Images, bottom: Images, top_scores: NDArray[np.float64], bottom_scores: NDArray[np.float64], title: str = ""
) -> Figure:
    """Plot tiles with their scores above them, those with the highest scores first.

    Args:
        top: tiles (n, t, t, 3) with the highest scores.
        bottom: tiles (m, t, t, 3) with the lowest scores; may be empty.
        top_scores: scores (n,) of ``top``.
        bottom_scores: scores (m,) of ``bottom``.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: if tiles and scores differ in number, or ``top`` is empty.
    """
    if (len(top), len(bottom)) != (len(top_scores), len(bottom_scores)):
        raise ValueError(
            f"`top_scores` and `bottom_scores` must be one for each tile, got {len(top_scores)} and "
            f"{len(bottom_scores)} for {len(top)} and {len(bottom)}."
        )
    check_positive(top=len(top))
    groups = [("highest", top, top_scores), ("lowest", bottom, bottom_scores)]
    rows = [
        (f"{name} attention" if start == 0 else "", tiles[start : start + COLUMNS], scores[start : start + COLUMNS])
        for name, tiles, scores in groups
        for start in range(0, len(tiles), COLUMNS)
    ]
    columns = min(COLUMNS, max(len(top), len(bottom)))
    figure = Figure(figsize=(max(4.0, 1.35 * columns), 0.7 + 1.7 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, (name, tiles, scores) in zip(axes, rows, strict=True):
        row[0].set_title(name, loc="left", fontsize=9, pad=16)
        for ax, tile, score in zip(row, tiles, scores, strict=False):
            ax.imshow(tile)
            ax.text(0.5, 1.03, f"{score:.3g}", transform=ax.transAxes, ha="center", va="bottom", fontsize=7)
    return sign(figure, title)


def write_tile_montage(
    folder: str | os.PathLike[str],
    case_id: str,
    top: Images,
    bottom: Images,
    top_scores: NDArray[np.float64],
    bottom_scores: NDArray[np.float64],
) -> Path:
    """Write the figure of :py:func:`plot_tile_montage` atomically as ``<case_id>_tiles.png``.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``case_id`` is not a valid file name, or as in :py:func:`plot_tile_montage`.
    """
    check_name(case_id=case_id)
    figure = plot_tile_montage(top, bottom, top_scores, bottom_scores, case_id)
    return save_figure(figure, Path(folder) / f"{case_id}_tiles.png")
