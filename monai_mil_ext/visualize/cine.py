"""Animation of the slices of a scan with their attention."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_positive, optional_dependency

from ._style import HEAT
from .slice_scores import rank_slices

__all__ = ["write_cine"]

Image = optional_dependency("", "PIL.Image")
ImageDraw = optional_dependency("", "PIL.ImageDraw")
matplotlib = optional_dependency("figures", "matplotlib")

BAR_WIDTH, LINE_HEIGHT = 28, 16  # of the attention bar and of a line of text, in pixels
Array = np.ndarray[Any, Any]


def write_cine(
    path: str | os.PathLike[str],
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None = None,
    milliseconds: int = 120,
    note: str = "",
) -> None:
    """Write the slices of a scan as an animated GIF, with attention along the axis as a bar on the right.

    The bar shows the attention of all slices, with the highest position on top and two markers at the current slice.
    The caption marks slices of the reference; where masks are given, their outlines are drawn.

    Args:
        path: file to write, atomically.
        attention: attention weights (N,) of the slices.
        position: positions (N,) along the slice normal in mm, ascending.
        slices: images (N, h, w) in [0, 1].
        reference: reference masks (N, h, w) or labels (N,).
        milliseconds: time for which a slice is shown.
        note: line for the comment of the file, such as the model.

    Raises:
        ValueError: if the arrays differ in length, or ``milliseconds`` is not positive.
    """
    rank_slices(attention, position, slices, reference, 1)
    check_positive(milliseconds=milliseconds)
    heat = _heat(attention, slices.shape[1])
    frames = []
    for i, image in enumerate(slices):
        slice_reference = None if reference is None else reference[i]
        text = f"{position[i]:.1f} mm   attention {attention[i]:.3f}"
        mark = "   reference" if slice_reference is not None and slice_reference.any() else ""
        frames.append(_frame(image, slice_reference, heat, (i + 0.5) / len(slices), text + mark))
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=milliseconds,
            loop=0,
            comment="; ".join([RESEARCH_USE, *([note] if note else [])]).encode(),
        )


def _heat(attention: Array, height: int) -> Array:
    """Return the colors (height, BAR_WIDTH, 3) of the bar, with the last slice on top."""
    rows = ((np.arange(height)[::-1] + 0.5) / height * len(attention)).astype(int)
    values = attention / max(float(attention.max()), np.finfo(float).tiny)
    colors: Array = matplotlib.colormaps[HEAT](values[rows])[:, None, :3]
    return np.broadcast_to((colors * 255).astype(np.uint8), (height, BAR_WIDTH, 3))


def _frame(image: Array, reference: Array | None, heat: Array, fraction: float, text: str) -> Any:
    height, width = image.shape
    gray = np.repeat((np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    if reference is not None and reference.ndim == 2:
        gray[_outline(reference > 0)] = (0, 158, 255)
    canvas = np.zeros((height + 2 * LINE_HEIGHT, width + 2 + BAR_WIDTH, 3), dtype=np.uint8)
    canvas[:height, :width] = gray
    canvas[:height, width + 2 :] = heat
    frame = Image.fromarray(canvas)
    draw = ImageDraw.Draw(frame)
    y = round((1 - fraction) * (height - 1))
    for x, tip in ((width + 1, width + 9), (width + 1 + BAR_WIDTH, width - 7 + BAR_WIDTH)):
        draw.polygon([(x, y - 5), (x, y + 5), (tip, y)], fill="white", outline="black")
    draw.text((3, height + 2), text, fill="white")
    draw.text((3, height + LINE_HEIGHT), RESEARCH_USE, fill=(190, 190, 190))
    return frame


def _outline(mask: Array) -> Array:
    """Return the pixels of a mask that have a neighbor outside of it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
