"""What every format is read to: the arrays of the instances, and what the file says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .bag_rows import BagFileError, Rows

__all__ = ["FEATURE_KEYS", "BagInfo", "BagLayout", "Place", "feature_key", "smallest_step", "text"]

FEATURE_KEYS = ("features", "feats", "patch_embeddings", "feat")


class BagInfo(NamedTuple):
    """What is known of a bag without reading its features; None where the file doesn't tell."""

    num_instances: int
    in_features: int | None  # None: coordinates without features
    dtype: torch.dtype | None  # of the features in the file
    format: str
    level: str  # what an instance is: tile, slide or patient
    encoder: str | None
    unit: str | None  # of coords and tile_size: px (pixels of level 0) or um
    tile_size: float | None
    tile_size_estimated: bool
    magnification: float | None
    mpp: float | None  # micrometres per pixel of what the encoder saw
    keys: tuple[str, ...]  # what else can be read, one row an instance


class Place(NamedTuple):
    """Unit and tile size; ``scale`` takes the coordinates of the file to that unit."""

    unit: str | None = None
    tile_size: float | None = None
    scale: float = 1.0
    estimated: bool = False


@dataclass(frozen=True)
class BagLayout:
    """A bag file that is open.

    Args:
        format: its name.
        columns: arrays under their own names, but ``features`` and ``coords``.
        attributes: of the bag.
        place: unit and tile size as far as the file tells them.
        locate: what the coordinates (N, 2) tell where the file does not.
    """

    format: str
    columns: Mapping[str, Rows]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    level: str = "tile"
    encoder: str | None = None
    magnification: float | None = None
    mpp: float | None = None
    place: Place = field(default_factory=Place)
    locate: Callable[[NDArray[Any]], Place] | None = None

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


def feature_key(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Which of the arrays holds the features: the one of a known name, else the only one with two axes.

    Raises:
        BagFileError: when two known names are there, or none and several arrays could be meant.
    """
    known = [key for key in FEATURE_KEYS if key in shapes]
    if len(known) > 1:
        raise BagFileError(f"`path` must hold features under one of the names {FEATURE_KEYS}, got {known}")
    if known:
        return known[0]
    tables = [
        key for key, shape in shapes.items() if key != "coords" and (len(shape) == 2 or shape[:1] == (1,) == shape[:-2])
    ]
    if len(tables) > 1:
        raise BagFileError(f"`path` must hold features under one of the names {FEATURE_KEYS}, got {sorted(tables)}")
    return tables[0] if tables else None


def smallest_step(coords: NDArray[Any]) -> float | None:
    """The smallest positive step between the columns or the rows of a grid of tiles."""
    steps = [np.diff(np.unique(coords[:, axis].astype(np.float64))) for axis in (0, 1)]
    smallest = [float(step.min()) for step in steps if step.size]
    return min(smallest) if smallest else None


def text(value: Any) -> str | None:
    """A string of an attribute; None for the many ways in which files write none."""
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    plain = str(value).strip().strip('"')
    return None if value is None or plain.lower() in ("", "none", "null") else plain
