"""Views of a stack of slices from its front and its side, in true proportion."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .slice_display import Sides, SliceDisplay

__all__ = ["StackView", "scale_length", "slice_edges", "slice_spans", "stack_views"]

Array = np.ndarray[Any, Any]
NAMES = {"SL": "front view", "SP": "side view", "AL": "axial view", "AI": "side view", "RI": "front view"}
NAMES["RP"] = "axial view"
WIDEST_STEP = 1.5  # usual steps that a slice covers at most: beyond them there is a gap
MAX_PIXELS = 1200  # of a view along the stack


class StackView(NamedTuple):
    """View of a stack along one direction in its slices, as radiologists see it: patient's right is on the left."""

    name: str
    image: Array  # (H, W), NaN where there is no slice
    outline: Array | None  # (H, W) reference mask
    extent: tuple[float, float, float, float]  # left, right, bottom and top: mm, where the size of a pixel is known
    sides: Sides
    is_upright: bool  # whether positions of slices run upwards; otherwise they run to the left

    @property
    def is_to_scale(self) -> bool:
        """Return whether both axes are in mm."""
        return not self.name.endswith("not to scale")

    @property
    def size(self) -> tuple[float, float]:
        """Return width and height."""
        left, right, bottom, top = self.extent
        return abs(right - left), abs(top - bottom)


def slice_spans(position: Array) -> NDArray[np.float64]:
    """Return the lower and upper end (N, 2) of each slice in mm.

    Ends lie halfway between slices, but no further than three quarters of the usual step (the lower median) from the
    slice, so that missing slices leave a gap. A single slice gets 1 mm.

    Example:
        >>> slice_spans(np.array([0.0, 2.0, 4.0, 10.0])).tolist()
        [[-1.0, 1.0], [1.0, 3.0], [3.0, 5.5], [8.5, 11.0]]
    """
    position = np.asarray(position, dtype=float)
    if len(position) == 1:
        return np.array([[position[0] - 0.5, position[0] + 0.5]])
    steps = np.diff(position)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    half = np.minimum(steps, WIDEST_STEP * usual) / 2
    outer = usual / 2
    lower, upper = np.append(outer, half), np.append(half, outer)
    return np.stack([position - lower, position + upper], axis=1)


def slice_edges(position: Array) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the edges (M + 1,) of all slices and gaps in mm, and the slice (M,) of each interval, -1 for a gap."""
    edges: list[float] = []
    index: list[int] = []
    for i, (low, high) in enumerate(slice_spans(position)):
        if edges and low - edges[-1] > 1e-6 * max(1.0, abs(low)):
            index.append(-1)
            edges.append(low)
        edges += [high] if edges else [low, high]
        index.append(i)
    return np.array(edges), np.array(index)


def scale_length(width: float) -> int:
    """Return the length of a scale bar in mm: at most 40 % of ``width``, and at least 1.

    Example:
        >>> scale_length(200.0), scale_length(60.0)
        (50, 20)
    """
    return max((mm for mm in (1, 2, 5, 10, 20, 50, 100, 200) if mm <= 0.4 * width), default=1)


def stack_views(
    slices: Array, position: Array, display: SliceDisplay, reference: Array | None = None
) -> tuple[StackView, StackView]:
    """Return the two views that show the stack: through its columns (the front of an axial stack) and its rows.

    They cut the middle of the slices, or the middle of the reference masks.
    """
    masks = None if reference is None or reference.ndim != 3 or not reference.any() else np.asarray(reference) > 0
    row, column = _center(slices, masks)
    directions = display.directions or "SPL"
    height, width = display.pixel_mm or (1.0, 1.0)
    unknown = "" if display.pixel_mm else ", not to scale"
    views = []
    for kept, cut, pixel in ((2, np.s_[:, row], width), (1, np.s_[:, :, column], height)):
        letters = directions[0] + directions[kept]
        index, ends = _along(position, pixel if display.pixel_mm else 0)
        image = np.where(index[:, None] >= 0, np.asarray(slices[cut], dtype=float)[index], np.nan)
        outline = None if masks is None else masks[cut][index] & (index[:, None] >= 0)
        across = pixel * slices.shape[kept]
        is_upright = letters in ("SL", "SP", "AL")
        if is_upright:
            extent = (0.0, across, ends[1], ends[0])
        else:
            image, outline = image.T, None if outline is None else outline.T
            extent = (*ends, across, 0.0)
        sides = _sides(letters, is_upright) if display.directions else ("", "", "", "")
        views.append(StackView(NAMES[letters] + unknown, image, outline, extent, sides, is_upright))
    return views[0], views[1]


def _sides(letters: str, is_upright: bool) -> Sides:
    """Return the letters of a view; positions of slices increase towards the top or the left."""
    opposite = {"S": "I", "A": "P", "R": "L"}[letters[0]]
    down, right = (opposite, letters[1]) if is_upright else (letters[1], opposite)
    return SliceDisplay.sides_of(down, right)


def _along(position: Array, pixel: float) -> tuple[NDArray[np.intp], tuple[float, float]]:
    """Return the slice of each row of a view from the highest position down, -1 in gaps, and both ends in mm."""
    edges, index = slice_edges(position)
    length = edges[-1] - edges[0]
    finest = min(float(np.diff(edges).min()), pixel or np.inf)
    count = int(np.clip(np.ceil(length / finest), 1, MAX_PIXELS))
    middles = edges[-1] - (np.arange(count) + 0.5) * (length / count)
    place = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(index) - 1)
    return index[place], (float(edges[-1]), float(edges[0]))


def _center(slices: Array, masks: Array | None) -> tuple[int, int]:
    """Return the row and the column where the views cut the slices."""
    if masks is None:
        return slices.shape[1] // 2, slices.shape[2] // 2
    row, column = (int(np.flatnonzero(masks.any(axis=axes)).mean()) for axes in ((0, 2), (0, 1)))
    return row, column
