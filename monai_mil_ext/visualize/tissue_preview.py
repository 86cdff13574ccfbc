"""Pictures of the tissue that was found on slides."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.data import SlideFile, TissueLabel, TissueMap
from monai_mil_ext.data.cohorts.case_lists import is_feature_file
from monai_mil_ext.transforms import TileBagd
from monai_mil_ext.transforms.slides.tile_bag import slide_resolution
from monai_mil_ext.utils import BagKeys, check_name, optional_dependency
from monai_mil_ext.utils.exceptions import case_error
from monai_mil_ext.utils.privacy import describe_case_error

from ._style import ATTENTION, REFERENCE, SECONDARY, new_figure, save_figure, sign

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_tissue_preview", "write_tissue_preview", "write_tissue_previews"]

logger = logging.getLogger(__name__)
matplotlib_collections = optional_dependency("figures", "matplotlib.collections")
matplotlib_patches = optional_dependency("figures", "matplotlib.patches")

LARGEST = 1024  # pixels along a side of the picture; a finer map is thinned
TILE = "#222222"


def plot_tissue_preview(
    found: TissueMap, corners: NDArray[Any] | None = None, edge: float = 0.0, title: str = "", note: str = ""
) -> Figure:
    """Plot a slide next to the same slide with its tissue outlined, what is left out hatched, and its tiles.

    Args:
        found: tissue map of the slide, see :py:func:`monai_mil_ext.data.find_tissue`.
        corners: (N, 2), upper left corners (x, y) of the tiles in pixels of level 0.
        edge: side of a tile in pixels of level 0.
        title: title of the figure.
        note: small line below the figure; by default the note of ``found``.

    Returns:
        The figure, whose axes count pixels of level 0.

    Raises:
        ValueError: if ``corners`` are not (N, 2), or there are tiles but no ``edge``.
    """
    places = np.empty((0, 2)) if corners is None else np.asarray(corners)
    if places.ndim != 2 or places.shape[1] != 2 or (len(places) and edge <= 0):
        raise ValueError(f"`corners` must be (N, 2) with a positive `edge`, got {places.shape} and {edge!r}.")
    step = -(-max(found.labels.shape) // LARGEST)
    image, labels = found.thumbnail.image[::step, ::step], found.labels[::step, ::step]
    scale, (x, y) = found.thumbnail.downsample * step, found.thumbnail.origin
    height, width = (side * scale for side in labels.shape)
    figure = new_figure(figsize=(12, 1.2 + 5.5 * min(2.0, height / width)), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax in axes:
        ax.imshow(image, extent=(x, x + width, y + height, y))
        ax.set_axis_off()
    grid = x + (np.arange(labels.shape[1]) + 0.5) * scale, y + (np.arange(labels.shape[0]) + 0.5) * scale
    keys = [*_draw_tiles(axes[1], places, edge), *_draw_labels(axes[1], grid, labels, found.left_out)]
    axes[1].set(xlim=(x, x + width), ylim=(y + height, y))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    axes[1].legend(handles=keys, ncols=3, fontsize=8, frameon=False, **below)
    return sign(figure, title, note or found.note())


def write_tissue_preview(
    folder: str | os.PathLike[str],
    case_id: str,
    found: TissueMap,
    corners: NDArray[Any] | None = None,
    edge: float = 0.0,
    title: str = "",
    note: str = "",
) -> Path:
    """Write the figure of :py:func:`plot_tissue_preview` atomically as ``<case_id>_tissue.jpg``.

    The title is the case ID unless ``title`` is given.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``case_id`` is not a valid file name, or as in :py:func:`plot_tissue_preview`.
    """
    check_name(case_id=case_id)
    figure = plot_tissue_preview(found, corners, edge, title or case_id, note)
    return save_figure(figure, Path(folder) / f"{case_id}_tissue.jpg")


def write_tissue_previews(
    items: Iterable[Mapping[str, Any]], tiles: TileBagd, output_dir: str | os.PathLike[str]
) -> list[Path]:
    """Write a tissue preview of each slide of a cohort, without reading tiles.

    A slide that can't be read is skipped with a warning; feature files are skipped, and all slides if ``tiles`` looks
    for no tissue. A slide without tiles has a preview too, which shows the reason.

    Args:
        items: items with ``case_id``, ``image`` (a path, or the paths of a patient) and optionally ``slide_mpp``.
        tiles: transform that selects the tiles.
        output_dir: folder in which ``<case_id>/<case_id>_tissue.jpg`` are written; ``<case_id>_1_tissue.jpg`` and so on
            for the slides of a patient.

    Returns:
        Paths of the files.
    """
    key, written = tiles.keys[0], []
    for case, folder, item in _slides(items, key, Path(output_dir)):
        if is_feature_file(item[key]) or tiles.to_tiles.tissue is False:
            continue
        try:
            written.append(_write_preview(folder, case, item, tiles))
        except Exception as error:
            cause = case_error(error)
            if cause is None:
                raise
            logger.warning(f"{case}: no tissue preview: {describe_case_error(cause, item)}")
    return written


def _slides(
    items: Iterable[Mapping[str, Any]], key: Any, output_dir: Path
) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    """Yield name, folder and item of each slide."""
    for item in items:
        case, paths = str(item[BagKeys.CASE_ID]), item[key]
        if isinstance(paths, (list, tuple)):
            yield from ((f"{case}_{i}", output_dir / case, {**item, key: path}) for i, path in enumerate(paths, 1))
        else:
            yield case, output_dir / case, item


def _write_preview(folder: Path, case: str, item: Mapping[str, Any], tiles: TileBagd) -> Path:
    to_tiles, mpp = tiles.to_tiles, slide_resolution(item)
    mpp = to_tiles.slide_mpp if mpp is None else mpp
    with SlideFile(item[tiles.keys[0]], to_tiles.reader, mpp) as slide:
        found = to_tiles.find_tissue(slide)
        corners, _, enough = to_tiles.tiles(slide, found)
        edge = to_tiles.grid.tile_size * to_tiles.grid.scale(slide)
    if found is None:
        raise ValueError("`tiles` must look for tissue, got none.")
    share = found.mask.mean()
    title = f"{case}: {share:.0%} tissue, {np.count_nonzero(enough)} of {len(enough)} tiles"
    return write_tissue_preview(folder, case, found, corners[enough], edge, title)


def _draw_tiles(ax: Axes, corners: NDArray[Any], edge: float) -> list[Any]:
    if not len(corners):
        return []
    square = edge * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    options: dict[str, Any] = {"facecolors": "none", "edgecolors": TILE, "linewidths": 0.4}
    ax.add_collection(matplotlib_collections.PolyCollection(corners[:, None] + square, **options))
    return [matplotlib_patches.Patch(facecolor="none", edgecolor=TILE, label=f"{len(corners)} tiles")]


def _draw_labels(
    ax: Axes, grid: tuple[NDArray[Any], NDArray[Any]], labels: NDArray[np.uint8], left_out: str
) -> list[Any]:
    """Outline tissue and hatch what is left out, if there is any, and return their entries of the legend."""
    keys = []
    tissue, ink = labels == TissueLabel.TISSUE, labels >= TissueLabel.INK
    if tissue.any() and min(labels.shape) > 1:
        ax.contour(*grid, tissue, levels=[0.5], colors=[REFERENCE], linewidths=1.2)
        keys.append(matplotlib_patches.Patch(facecolor="none", edgecolor=REFERENCE, linewidth=1.2, label="tissue"))
    if ink.any() and min(labels.shape) > 1:
        hatched = ax.contourf(*grid, ink, levels=[0.5, 1.5], colors="none", hatches=["////"])
        hatched.set_edgecolor(ATTENTION)
        hatched.set_linewidth(0.0)
        label = f"left out: {left_out}" if left_out else "left out"
        keys.append(matplotlib_patches.Patch(facecolor="none", edgecolor=ATTENTION, hatch="////", label=label))
    return keys or [matplotlib_patches.Patch(facecolor="none", edgecolor=SECONDARY, label="no tissue")]
