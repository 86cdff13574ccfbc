"""The tiles of a slide that weigh most, and those that weigh least."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_name, check_positive

from .slice_scores import QUIET

__all__ = ["plot_tile_montage", "write_tile_montage"]

COLUMNS = 8
Images = NDArray[np.uint8]


def plot_tile_montage(
    top: Images, bottom: Images, top_scores: NDArray[np.float64], bottom_scores: NDArray[np.float64], title: str = ""
) -> Figure:
    """Draw tiles (n, t, t, 3) in rows with their scores (n,) above each, the highest first and the lowest below.

    Args:
        top: the tiles with the highest scores.
        bottom: those with the lowest; there may be none.
        top_scores: of the first.
        bottom_scores: of the second.
        title: one line above all.

    Raises:
        ValueError: when tiles and scores differ in number.
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
    for one in axes.flat:
        one.set_axis_off()
    for row, (name, tiles, scores) in zip(axes, rows, strict=True):
        row[0].set_title(name, loc="left", fontsize=9, pad=16)
        for one, tile, score in zip(row, tiles, scores, strict=False):
            one.imshow(tile)
            one.text(0.5, 1.03, f"{score:.3g}", transform=one.transAxes, ha="center", va="bottom", fontsize=7)
    figure.suptitle(title, fontsize=11)
    figure.text(0.995, 0.003, RESEARCH_USE, ha="right", va="bottom", fontsize=7, color=QUIET)
    return figure


def write_tile_montage(
    folder: str | os.PathLike[str],
    case_id: str,
    top: Images,
    bottom: Images,
    top_scores: NDArray[np.float64],
    bottom_scores: NDArray[np.float64],
) -> Path:
    """Write :py:func:`plot_tile_montage` as ``<case_id>_tiles.png``, as a whole or not at all.

    Raises:
        ValueError: when ``case_id`` is no name of a file, or tiles and scores differ in number.
    """
    check_name(case_id=case_id)
    figure = plot_tile_montage(top, bottom, top_scores, bottom_scores, case_id)
    path = Path(folder) / f"{case_id}_tiles.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Description": RESEARCH_USE})
    return path
