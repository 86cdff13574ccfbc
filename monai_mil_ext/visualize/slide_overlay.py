"""The picture of a slide's answer: where on the slide the network looked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from monai.data import MetaTensor

from monai_mil_ext.data import Thumbnail
from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_name

from .slice_scores import HEAT, QUIET

__all__ = ["plot_slide_overlay", "write_slide_overlay"]

UNITS = {"none": "score", "ratio": "score / uniform", "percentile": "percentile of the tiles"}


def plot_slide_overlay(thumbnail: Thumbnail, heatmap: MetaTensor, channel: int = 0, title: str = "") -> Figure:
    """Draw a slide as it is, and beside it with its map laid over it; where there is no tile it is left as it is.

    Args:
        thumbnail: of the slide, see :py:class:`monai_mil_ext.data.SlideFile`.
        heatmap: (A, h, w), of :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`, NaN where there is no tile.
        channel: which of the A to draw.
        title: one line above both.

    Raises:
        ValueError: when ``heatmap`` is no such map.
    """
    if heatmap.ndim != 3 or not 0 <= channel < len(heatmap) or "downsample" not in getattr(heatmap, "meta", {}):
        got = tuple(heatmap.shape)
        raise ValueError(f"`heatmap` must be a map (A, h, w) of a slide with channel {channel}, got shape {got}.")
    image, heat = thumbnail.image, np.ma.masked_invalid(heatmap[channel].as_tensor().cpu().numpy())
    height, width = (side * thumbnail.downsample for side in image.shape[:2])
    figure = Figure(figsize=(11, 0.6 + 5 * min(2.0, height / width)), layout="constrained")
    axes = figure.subplots(1, 2)
    for one in axes:
        one.imshow(image, extent=(0, width, height, 0))
        one.set_axis_off()
    down = heatmap.meta["downsample"]
    place: Any = (0, heat.shape[1] * down, heat.shape[0] * down, 0)  # pixels of level 0, as of the thumbnail
    drawn = axes[1].imshow(heat, extent=place, cmap=HEAT, alpha=0.6, interpolation="nearest")
    axes[1].set(xlim=(0, width), ylim=(height, 0))
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=UNITS.get(heatmap.meta.get("scaling", "none"), "score"))
    figure.suptitle(title, fontsize=11)
    figure.text(0.995, 0.005, RESEARCH_USE, ha="right", va="bottom", fontsize=7, color=QUIET)
    return figure


def write_slide_overlay(
    folder: str | os.PathLike[str], case_id: str, thumbnail: Thumbnail, heatmap: MetaTensor, channel: int = 0
) -> Path:
    """Write :py:func:`plot_slide_overlay` as ``<case_id>.png``, as a whole or not at all.

    Raises:
        ValueError: when ``case_id`` is no name of a file, or ``heatmap`` no map of a slide.
    """
    check_name(case_id=case_id)
    figure = plot_slide_overlay(thumbnail, heatmap, channel, case_id)
    path = Path(folder) / f"{case_id}.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Description": RESEARCH_USE})
    return path
