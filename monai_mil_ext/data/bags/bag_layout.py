"""Layout of an open bag file, the same for every format: arrays of the instances and metadata of the bag."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .bag_rows import BagFileError, Rows, Unreadable

__all__ = [
    "FEATURE_KEYS",
    "BagInfo",
    "BagLayout",
    "CoordinateSpec",
    "feature_key",
    "number",
    "positive_number",
    "smallest_step",
    "text",
]

FEATURE_KEYS = ("features", "feats", "patch_embeddings", "feat")


class BagInfo(NamedTuple):
    """Information on a bag that needs no features; ``None`` for what the file does not state."""

    num_instances: int
    in_features: int | None  # None: the file has coordinates only
    dtype: torch.dtype | None  # of the features in the file
    format: str
    level: str  # of an instance: tile, slide or patient
    encoder: str | None
    unit: str | None  # of coords and tile_size: "px" (pixels of level 0) or "um"
    tile_size: float | None
    tile_size_estimated: bool
    magnification: float | None
    mpp: float | None  # micrometers per pixel of the encoder's input
    input_size: float | None  # edge of a tile in pixels of the encoder's input
    keys: tuple[str, ...]  # other arrays that can be read, with one row per instance


class CoordinateSpec(NamedTuple):
    """Unit of coordinates and tile size; ``scale`` converts the coordinates of the file to that unit."""

    unit: str | None = None
    tile_size: float | None = None
    scale: float = 1.0
    estimated: bool = False


@dataclass(frozen=True)
class BagLayout:
    """Content of an open bag file.

    Args:
        format: name of the format.
        columns: arrays by name; those of features and coordinates are called ``features`` and ``coords``.
        attributes: attributes of the bag.
        coordinate_spec: unit and tile size as far as the file states them.
        infer_coordinates: function that infers them from coordinates (N, 2) if the file does not state them.
    """

    format: str
    columns: Mapping[str, Rows]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    level: str = "tile"
    encoder: str | None = None
    magnification: float | None = None
    mpp: float | None = None
    input_size: float | None = None
    coordinate_spec: CoordinateSpec = field(default_factory=CoordinateSpec)
    infer_coordinates: Callable[[NDArray[Any]], CoordinateSpec] | None = None

    def __post_init__(self) -> None:
        features, coords = self.columns.get("features"), self.columns.get("coords")
        if features is not None and (len(features.shape) != 2 or not features.shape[1]) and features.shape[0]:
            raise BagFileError(f"`path` must hold features (N, F), got {features.shape}")
        if coords is not None and (len(coords.shape) != 2 or coords.shape[1] < 2):
            raise BagFileError(f"`path` must hold coords (N, 2), got {coords.shape}")
        if features is not None and coords is not None and len({features.shape[0], coords.shape[0]}) > 1:
            raise BagFileError(
                f"`path` must hold a row of coords for every instance, got {coords.shape[0]} for {features.shape[0]}"
            )

    def __len__(self) -> int:
        column = self.columns.get("features") or self.columns["coords"]
        return column.shape[0]


def feature_key(
    shapes: Mapping[str, tuple[int, ...]], unreadable: Mapping[str, Unreadable] | None = None
) -> str | None:
    """Return the name of the array of features: a known name, or else the only array with two axes.

    Args:
        shapes: shapes of the arrays that can be read.
        unreadable: arrays that can't be read; if the features are among them, no other array may take their place.

    Raises:
        BagFileError: when there are two known names, none and several candidates, or the features can't be read.
    """
    others = unreadable or {}
    candidates = {**shapes, **{name: array.shape for name, array in others.items()}}
    names = [key for key in FEATURE_KEYS if key in candidates]
    if not names:
        names = sorted(key for key, shape in candidates.items() if key != "coords" and _is_table(shape))
    if len(names) > 1:
        raise BagFileError(f"`path` must hold features under one of the names {FEATURE_KEYS}, got {names}")
    if names and names[0] in others:
        raise BagFileError(f"`path` must hold features of real numbers, got {others[names[0]].kind}")
    return names[0] if names else None


def _is_table(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or shape[:1] == (1,) == shape[:-2]


def number(value: Any) -> float | None:
    """Convert an attribute to a finite number; of a pair, such as a downsample in x and y, use the first."""
    try:
        first = float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None
    return first if math.isfinite(first) else None


def positive_number(value: Any) -> float | None:
    """Convert an attribute to a positive number; any other size or resolution is as good as not stated."""
    first = number(value)
    return first if first is not None and first > 0 else None


def smallest_step(coords: NDArray[Any]) -> float | None:
    """Return the smallest positive distance between columns or rows of a grid of tiles."""
    steps = [np.diff(np.unique(coords[:, axis].astype(np.float64))) for axis in (0, 1)]
    smallest = [float(step.min()) for step in steps if step.size]
    return min(smallest) if smallest else None


def text(value: Any) -> str | None:
    """Convert an attribute to a string; the various spellings of a missing value become ``None``."""
    if isinstance(value, np.ndarray):
        value = value.item() if value.size == 1 else None
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    plain = str(value).strip().strip('"')
    return None if value is None or plain.lower() in ("", "none", "null", "nan") else plain
