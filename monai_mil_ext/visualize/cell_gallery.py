"""The cells of a bag in the order of the attention that they got."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_name, check_positive

from .slice_scores import HEAT, QUIET

__all__ = ["plot_cell_gallery", "write_cell_gallery"]

LEAST = 0.01  # of a uniform share; below it a number would look as if it had an order
COLUMNS = 8
Array = NDArray[Any]


def plot_cell_gallery(
    cells: Array,
    attention: Array,
    names: Sequence[str] | None = None,
    most: int = 16,
    least: int = 8,
    title: str = "",
) -> Figure:
    """Draw the cells of most attention, in its order, and below them those of least, each with what it got.

    The number above a cell is its attention over that of a uniform bag, N a: 1 is what a cell gets when nothing is
    chosen. The frame has the heat of it. A bag of no more than ``most`` cells is shown whole.

    Args:
        cells: (N, channels, h, w) in [0, 1], of one or three channels.
        attention: (N,), weights of the cells, summing to one.
        names: of the cells, written below them.
        most: how many cells of most attention.
        least: how many of least; a cell is shown once.
        title: one line above all.

    Raises:
        ValueError: when the arrays do not have one N or the cells no such shape, or ``most`` is not positive.
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
        (word, part[i : i + COLUMNS])
        for word, part in (("most", order[:most]), ("least", rest))
        for i in range(0, len(part), COLUMNS)
    ]
    columns = min(COLUMNS, max(len(part) for _, part in rows))
    figure = Figure(figsize=(max(4.5, 1.25 * columns), 0.7 + 1.62 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    ratio = np.asarray(attention, dtype=float) * len(cells)
    heat = mpl.colormaps[HEAT](ratio / max(float(ratio.max()), np.finfo(float).tiny))
    seen: set[str] = set()
    for own, (word, part) in zip(axes, rows, strict=True):
        for one in own[len(part) :]:
            one.set_axis_off()
        for one, i in zip(own, part, strict=False):
            _draw(one, cells[i], ratio[i], heat[i], None if names is None else names[i])
        if word not in seen:
            own[0].set_ylabel(f"{word} attention", fontsize=8)
        seen.add(word)
    figure.suptitle(title, fontsize=11)
    figure.text(0.995, 0.003, RESEARCH_USE, ha="right", va="bottom", fontsize=7, color=QUIET)
    return figure


def write_cell_gallery(
    folder: str | os.PathLike[str],
    case_id: str,
    cells: Array,
    attention: Array,
    names: Sequence[str] | None = None,
) -> Path:
    """Write :py:func:`plot_cell_gallery` as ``<case_id>_cells.png``, as a whole or not at all.

    Raises:
        ValueError: when ``case_id`` is no name of a file, or as of :py:func:`plot_cell_gallery`.
    """
    check_name(case_id=case_id)
    figure = plot_cell_gallery(cells, attention, names, title=case_id)
    path = Path(folder) / f"{case_id}_cells.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Description": RESEARCH_USE})
    return path


def _draw(axes: Any, cell: Array, ratio: float, color: Any, name: str | None) -> None:
    image = np.moveaxis(np.clip(cell, 0, 1), 0, 2)
    axes.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1)
    axes.set_title(f"{ratio:.2g}" if ratio >= LEAST else f"< {LEAST}", fontsize=8, pad=3)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color=color, linewidth=3)
    if name is not None:
        axes.set_xlabel(name if len(name) <= 18 else f"…{name[-17:]}", fontsize=6)
