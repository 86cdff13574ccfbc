"""A scan's slices as a moving picture, each beside its score."""

from __future__ import annotations

import os
from typing import Any

import matplotlib as mpl
import numpy as np
from monai.utils import optional_import

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_positive

from .slice_scores import HEAT, ranked

__all__ = ["write_cine"]

Image, _ = optional_import("PIL.Image")  # matplotlib needs it, so it is there
ImageDraw, _ = optional_import("PIL.ImageDraw")

BAR, LINE = 28, 16  # width of the bar of scores and height of a line of text, in pixels
Array = np.ndarray[Any, Any]


def write_cine(
    path: str | os.PathLike[str],
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None = None,
    milliseconds: int = 120,
) -> None:
    """Write slice after slice as an animated GIF, with attention along the axis as a bar at the right.

    The bar shows the heat of all slices, the highest position on top, and two marks where the picture is. A word in
    the caption tells a slice of the reference; its outline is drawn where there are masks.

    Args:
        path: the file; it is written as a whole or not at all.
        attention: (N,), weights of the slices.
        position: (N,), mm along the slice normal, ascending.
        slices: (N, h, w), the images in [0, 1].
        reference: masks (N, h, w) or labels (N,) of what should be found.
        milliseconds: that a slice is shown.

    Raises:
        ValueError: when the arrays do not have one N, or ``milliseconds`` is not positive.
    """
    ranked(attention, position, slices, reference, 1)
    check_positive(milliseconds=milliseconds)
    heat = _heat(attention, slices.shape[1])
    frames = []
    for i, image in enumerate(slices):
        found = None if reference is None else reference[i]
        text = f"{position[i]:.1f} mm   attention {attention[i]:.3f}"
        mark = "   reference" if found is not None and found.any() else ""
        frames.append(_frame(image, found, heat, (i + 0.5) / len(slices), text + mark))
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=milliseconds,
            loop=0,
            comment=RESEARCH_USE.encode(),
        )


def _heat(attention: Array, height: int) -> Array:
    """Colours (height, BAR, 3) of the bar, the last slice on top."""
    rows = ((np.arange(height)[::-1] + 0.5) / height * len(attention)).astype(int)
    values = attention / max(float(attention.max()), np.finfo(float).tiny)
    colours: Array = mpl.colormaps[HEAT](values[rows])[:, None, :3]
    return np.broadcast_to((colours * 255).astype(np.uint8), (height, BAR, 3))


def _frame(image: Array, found: Array | None, heat: Array, place: float, text: str) -> Any:
    height, width = image.shape
    grey = np.repeat((np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    if found is not None and found.ndim == 2:
        grey[_outline(found > 0)] = (0, 158, 255)
    whole = np.zeros((height + 2 * LINE, width + 2 + BAR, 3), dtype=np.uint8)
    whole[:height, :width] = grey
    whole[:height, width + 2 :] = heat
    frame = Image.fromarray(whole)
    draw = ImageDraw.Draw(frame)
    y = round((1 - place) * (height - 1))
    for x, tip in ((width + 1, width + 9), (width + 1 + BAR, width - 7 + BAR)):
        draw.polygon([(x, y - 5), (x, y + 5), (tip, y)], fill="white", outline="black")
    draw.text((3, height + 2), text, fill="white")
    draw.text((3, height + LINE), RESEARCH_USE, fill=(190, 190, 190))
    return frame


def _outline(mask: Array) -> Array:
    """Pixels of a mask that touch one outside."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
