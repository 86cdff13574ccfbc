"""Figure of a slide with a heat map of its scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import MetaTensor

from monai_mil_ext.data import Thumbnail
from monai_mil_ext.utils import check_name

from ._style import HEAT, new_figure, save_figure, sign

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_slide_overlay", "write_slide_overlay"]

UNITS = {"none": "score", "ratio": "score / uniform", "percentile": "percentile of the tiles"}


def plot_slide_overlay(
    thumbnail: Thumbnail, heatmap: MetaTensor, channel: int = 0, title: str = "", note: str = ""
) -> Figure:
    """Plot a slide next to the same slide with its heat map overlaid; regions without tiles stay uncovered.

    Args:
        thumbnail: thumbnail of the slide, see :py:class:`monai_mil_ext.data.SlideFile`.
        heatmap: heat map (A, h, w) of :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`, NaN outside of tiles.
        channel: index of the channel to draw.
        title: title of the figure.
        note: small line below the figure, such as the model.

    Returns:
        The figure.

    Raises:
        ValueError: if ``heatmap`` is not such a heat map.
    """
    if heatmap.ndim != 3 or not 0 <= channel < len(heatmap) or "downsample" not in getattr(heatmap, "meta", {}):
        got = tuple(heatmap.shape)
        raise ValueError(f"`heatmap` must be a map (A, h, w) of a slide with channel {channel}, got shape {got}.")
    image, heat = thumbnail.image, np.ma.masked_invalid(heatmap[channel].as_tensor().cpu().numpy())
    height, width = (side * thumbnail.downsample for side in image.shape[:2])
    figure = new_figure(figsize=(11, 0.6 + 5 * min(2.0, height / width)), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax in axes:
        ax.imshow(image, extent=(0, width, height, 0))
        ax.set_axis_off()
    downsample = heatmap.meta["downsample"]
    extent: Any = (0, heat.shape[1] * downsample, heat.shape[0] * downsample, 0)  # in pixels of level 0
    overlay = axes[1].imshow(heat, extent=extent, cmap=HEAT, alpha=0.6, interpolation="nearest")
    axes[1].set(xlim=(0, width), ylim=(height, 0))
    figure.colorbar(overlay, ax=axes, shrink=0.8, label=UNITS.get(heatmap.meta.get("scaling", "none"), "score"))
    return sign(figure, title, note)


def write_slide_overlay(
    folder: str | os.PathLike[str],
    case_id: str,
    thumbnail: Thumbnail,
    heatmap: MetaTensor,
    channel: int = 0,
    title: str = "",
    note: str = "",
) -> Path:
    """Write the figure of :py:func:`plot_slide_overlay` atomically as ``<case_id>.png``.

    The title is the case ID unless ``title`` is given.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``case_id`` is not a valid file name, or ``heatmap`` is not a heat map of a slide.
    """
    check_name(case_id=case_id)
    figure = plot_slide_overlay(thumbnail, heatmap, channel, title or case_id, note)
    return save_figure(figure, Path(folder) / f"{case_id}.png", dpi=150)
