"""Tissue on the thumbnail of a slide, found by any detector, and its fraction of each tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.data.slides.slide_file import SlideFile, SlideFileError, Thumbnail

__all__ = ["TissueLabel", "TissueMap", "find_tissue", "tissue_fraction"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MOSTLY = 0.5  # fraction of what is not glass, from which a note says that it is left out
LARGEST = 8192  # pixels along a side of a thumbnail for a detector that asks for a resolution


class TissueLabel(IntEnum):
    """Labels of the pixels of a thumbnail; from ``INK`` on they are classes that are left out, such as folds."""

    GLASS = 0
    TISSUE = 1
    INK = 2


class TissueMap(NamedTuple):
    """Labels of the pixels of a thumbnail."""

    labels: Pixels  # (h, w), see TissueLabel
    thumbnail: Thumbnail
    left_out: str = ""  # names of the classes that are left out
    option: str = ""  # command-line option that keeps them

    @property
    def mask(self) -> Mask:
        """Mask (h, w) of the tissue."""
        mask: Mask = self.labels == TissueLabel.TISSUE
        return mask

    @property
    def left_out_fraction(self) -> float:
        """Fraction of what is not glass that is left out; 0 if all is glass."""
        stained = np.count_nonzero(self.labels)
        return np.count_nonzero(self.labels >= TissueLabel.INK) / stained if stained else 0.0

    def note(self) -> str:
        """Return a sentence if more is left out than is kept, and an empty text otherwise."""
        fraction = self.left_out_fraction
        if fraction < MOSTLY:
            return ""
        hint = f", which {self.option} keeps" if self.option else ""
        return f"{fraction:.0%} of what is not glass was taken for {self.left_out or 'other than tissue'}{hint}"


def find_tissue(slide: SlideFile, tissue: Callable[..., Any], thumbnail_size: int = 2048) -> TissueMap:
    """Find the tissue on a thumbnail of a slide.

    Args:
        slide: slide to read.
        tissue: detector: a function of a thumbnail (h, w, 3) of bytes that returns a mask (h, w), True for tissue, or
            integers (h, w) as in :py:class:`TissueLabel`. If it has a method ``labels(thumbnail, mpp)``, that is called
            instead, with the micrometers per pixel of the thumbnail, or None. If it has an attribute ``mpp``, the
            thumbnail has at least that resolution. Attributes ``left_out`` (names of the
            classes that are left out) and ``option`` (what keeps them) are used in messages.
        thumbnail_size: largest size of the longer side of the thumbnail in pixels.

    Raises:
        SlideFileError: when the detector needs a resolution that the slide does not state, or at which it has more than
            8192 pixels along a side.
        ValueError: when the detector returns no mask or labels of the thumbnail.
    """
    wanted = getattr(tissue, "mpp", None)
    needed = 0 if wanted is None else _side(slide, wanted)
    thumbnail = slide.thumbnail(max(thumbnail_size, needed))
    mpp = None if slide.mpp is None else slide.mpp * thumbnail.downsample
    image = thumbnail.image
    labels = tissue.labels(image, mpp) if hasattr(tissue, "labels") else tissue(image)
    names = (str(getattr(tissue, name, "")) for name in ("left_out", "option"))
    return TissueMap(_as_labels(labels, image.shape[:2]), thumbnail, *names)


def _side(slide: SlideFile, mpp: float) -> int:
    """Return the longer side in pixels of a thumbnail of ``mpp`` micrometers per pixel."""
    if slide.mpp is None:
        raise SlideFileError(
            f"`slide` must state its mpp for this tissue detector (if missing, give `slide_mpp`), got none in "
            f"{slide.name!r}."
        )
    side = math.ceil(max(slide.bounds[2:]) * slide.mpp / mpp)
    if side > LARGEST:
        raise SlideFileError(
            f"`slide` must have at most {LARGEST} pixels along a side at the {mpp:g} mpp of the tissue detector, got "
            f"{side} in {slide.name!r}."
        )
    return side


def _as_labels(labels: Any, shape: tuple[int, ...]) -> Pixels:
    """Convert a mask or labels to bytes; 0 and 255 alone are a mask, too."""
    values = np.asarray(labels)
    if values.shape != shape:
        raise ValueError(f"`tissue` must give a mask of shape {shape}, got {values.shape}.")
    if not np.issubdtype(values.dtype, np.integer):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"`tissue` must give a mask or integers, got other values of {values.dtype}.")
        return values.astype(np.uint8)
    if values.size and not 0 <= values.min() <= values.max() <= np.iinfo(np.uint8).max:
        raise ValueError(f"`tissue` must give labels from 0 to 255, got {values.min()} to {values.max()}.")
    is_mask = np.isin(values, (0, 255)).all()
    return (values > 0).astype(np.uint8) if is_mask else values.astype(np.uint8)


def tissue_fraction(mask: Mask, corners: NDArray[np.int64], edge: float, downsample: float) -> NDArray[np.float64]:
    """Compute the fraction of each tile that is tissue, exactly, by integrating the mask over the tile.

    Args:
        mask: tissue mask of a thumbnail.
        corners: (N, 2), (x, y) in pixels of level 0.
        edge: side of a tile in pixels of level 0.
        downsample: pixels of level 0 per pixel of the thumbnail, along a side.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    low, high = corners / downsample, (corners + edge) / downsample
    area = sum(
        sign * _interpolate(integral, x, y)
        for sign, x, y in (
            (1, high[:, 0], high[:, 1]),
            (-1, low[:, 0], high[:, 1]),
            (-1, high[:, 0], low[:, 1]),
            (1, low[:, 0], low[:, 1]),
        )
    )
    fraction: NDArray[np.float64] = (area / (edge / downsample) ** 2).clip(0, 1)
    return fraction


def _interpolate(integral: NDArray[np.float64], x: Any, y: Any) -> Any:
    """Interpolate the integral bilinearly, which is exact because the mask is constant within a pixel."""
    height, width = integral.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    right, down = x - column, y - row
    upper = integral[row, column] * (1 - right) + integral[row, column + 1] * right
    lower = integral[row + 1, column] * (1 - right) + integral[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down
