"""Animation of the slices of a scan with their attention."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_positive, optional_dependency

from .relative_attention import EVEN_NOTE, attention_ratio, is_nearly_even, ratio_colors, ratio_text
from .slice_display import Sides, SliceDisplay
from .slice_scores import check_slices
from .stack_views import slice_edges

__all__ = ["write_cine"]

Image = optional_dependency("", "PIL.Image")
ImageDraw = optional_dependency("", "PIL.ImageDraw")

BAR_WIDTH, LINE_HEIGHT = 28, 16  # of the attention bar and of a line of text, in pixels
MIN_SIDE = 256  # of the longer side of a slice: smaller ones are enlarged, so that the text fits
LETTER, GAP = (255, 224, 138), (0, 0, 0)  # no color of heat
Array = np.ndarray[Any, Any]


def write_cine(
    path: str | os.PathLike[str],
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None = None,
    milliseconds: int = 120,
    note: str = "",
    display: SliceDisplay | None = None,
) -> None:
    """Write the slices of a scan as an animated GIF, with attention along the axis as a bar on the right.

    The bar shows the attention of all slices relative to uniform attention, on the color scale of all pictures, with
    the highest position on top and two markers at the current slice. The caption marks slices of the reference; where
    masks are given, their outlines are drawn.

    Args:
        path: file to write, atomically.
        attention: attention weights (N,) of the slices.
        position: positions (N,) along the slice normal in mm, ascending.
        slices: images (N, h, w) in [0, 1].
        reference: reference masks (N, h, w) or labels (N,).
        milliseconds: time for which a slice is shown.
        note: line for the comment of the file, such as the model.
        display: letters, proportion and numbers of the slices, and their window for the comment of the file.

    Raises:
        ValueError: if the arrays differ in length, or ``milliseconds`` is not positive.
    """
    check_slices(attention, position, slices, reference)
    check_positive(milliseconds=milliseconds)
    display = display or SliceDisplay()
    slices, reference = display.crop(slices), display.crop(reference)
    pictures = [_picture(image, None if reference is None else reference[i], display) for i, image in enumerate(slices)]
    heat, marks = _heat(attention, position, pictures[0].shape[0])
    ratio = attention_ratio(attention)
    last = [EVEN_NOTE] * is_nearly_even(attention) + [RESEARCH_USE]
    frames = []
    for i, picture in enumerate(pictures):
        mark = ", reference" if reference is not None and reference[i].any() else ""
        lines = [
            f"{display.name(i, len(slices))}, {ratio_text(ratio[i])} x uniform{mark}",
            display.place(i, position[i]),
        ]
        frames.append(_frame(picture, heat, marks[i], [*lines, *last], display.sides))
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=milliseconds,
            loop=0,
            comment="; ".join(filter(None, [RESEARCH_USE, display.window, note])).encode(),
        )


def _heat(attention: Array, position: Array, height: int) -> tuple[Array, Array]:
    """Return the colors (height, BAR_WIDTH, 3) of the bar, with the last slice on top, and the row (N,) of slices."""
    edges, index = slice_edges(position)
    length = edges[-1] - edges[0]
    places = edges[-1] - (np.arange(height) + 0.5) * (length / height)
    rows = index[np.clip(np.searchsorted(edges, places, side="right") - 1, 0, len(index) - 1)]
    colors = np.where(rows[:, None] >= 0, ratio_colors(attention_ratio(attention))[rows], GAP).astype(np.uint8)
    marks = np.round((edges[-1] - position) / length * (height - 1)).astype(int)
    return np.broadcast_to(colors[:, None], (height, BAR_WIDTH, 3)), marks


def _picture(image: Array, reference: Array | None, display: SliceDisplay) -> Array:
    """Return a slice as colors (height, width, 3) in true proportion, with the outline of a reference mask."""
    height, width = display.pixel_mm or (1.0, 1.0)
    size = np.array([image.shape[0] * height, image.shape[1] * width]) / min(height, width)
    rows, columns = np.round(size * max(1.0, MIN_SIDE / size.max())).astype(int).clip(1).tolist()
    gray = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).resize((columns, rows), Image.BILINEAR)
    picture = np.repeat(np.asarray(gray)[..., None], 3, axis=2)
    if reference is not None and reference.ndim == 2:
        mask = Image.fromarray((reference > 0).astype(np.uint8)).resize((columns, rows), Image.NEAREST)
        picture[_outline(np.asarray(mask) > 0)] = (0, 158, 255)
    return picture


def _frame(picture: Array, heat: Array, y: int, lines: list[str], sides: Sides) -> Any:
    height, width = picture.shape[:2]
    canvas = np.zeros((height + len(lines) * LINE_HEIGHT, width + 2 + BAR_WIDTH, 3), dtype=np.uint8)
    canvas[:height, :width] = picture
    canvas[:height, width + 2 :] = heat
    frame = Image.fromarray(canvas)
    draw = ImageDraw.Draw(frame)
    for x, tip in ((width + 1, width + 9), (width + 1 + BAR_WIDTH, width - 7 + BAR_WIDTH)):
        draw.polygon([(x, y - 5), (x, y + 5), (tip, y)], fill="white", outline="black")
    middle, center = height // 2, width // 2
    places = [(4, middle, "lm"), (width - 4, middle, "rm"), (center, 3, "mt"), (center, height - 4, "mb")]
    for letter, (h, v, anchor) in zip(sides, places, strict=True):
        draw.text((h, v), letter, fill=LETTER, anchor=anchor, font_size=13, stroke_width=1, stroke_fill="black")
    for row, line in enumerate(lines):
        color = (190, 190, 190) if row >= 2 else "white"
        draw.text((3, height + 2 + row * LINE_HEIGHT), line, fill=color)
    return frame


def _outline(mask: Array) -> Array:
    """Return the pixels of a mask that have a neighbor outside of it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
