"""Transforms from scores of tiles to a heat map of the slide."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple_rep
from monai.utils.enums import TransformBackends
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.data.slides.heatmap_files import SCALINGS, scale_scores
from monai_mil_ext.utils import BagKeys, check_choice, drop_padding

__all__ = ["TileScoresToHeatmap", "TileScoresToHeatmapD", "TileScoresToHeatmapDict", "TileScoresToHeatmapd"]

LARGEST = 2**28  # values of a map
PIXELS_PER_TILE = 4  # pixels of the map along a side of a tile, if no downsample is given
ROUNDING = 1e-2  # of the sum of attention in half precision
Scores = NDArray[np.float64]


class TileScoresToHeatmap(Transform):
    r"""Map scores of tiles to the slide, as the inverse of :py:class:`monai_mil_ext.transforms.TileBag`.

    A pixel of the map is the mean score of all tiles that contain its center. At a downsample of d, pixel (r, c) has
    its center at :math:`((c + 1/2) d, (r + 1/2) d)` in pixels of level 0, counted from the corner of the ``bounds``:
    the scanned part of the slide, to which viewers crop it. Without bounds it is the corner of the slide.

    The affine of the map converts (r, c) to (y, x) of level 0, with the center of the first pixel at the corner of the
    bounds. Its metadata are ``downsample``, ``scaling``, ``spatial_shape`` (width and height of the slide), ``bounds``
    (x, y, width, height), ``mpp`` (micrometers per pixel of the map, or None), and ``highest_ratio`` (the highest score
    divided by that of uniform attention, for each of A scores; None for scores that are not attention that sums to 1).

    Args:
        downsample: pixels of level 0 per pixel of the map, along a side; at most the size of a tile, so that no tile is
            lost; None uses a quarter of a tile.
        scaling: ``"none"``; ``"ratio"``, the score times the number of tiles, so that 1 is uniform attention;
            ``"percentile"``, the percentage of tiles with a lower score, counting half of those with an equal score;
            ``"signed"``, the score, drawn in colors that diverge from 0, such as the contributions of ``AdditiveMIL``.
        fill: value of pixels without a tile.

    Raises:
        ValueError: when an option is not allowed, ``coords`` and ``scores`` differ in number, a tile is outside of the
            slide, or the map would be larger than memory is likely to hold.

    Example:
        >>> coords = torch.tensor([[0, 0], [64, 0]])
        >>> to_map = TileScoresToHeatmap(downsample=32, scaling="ratio", fill=0.0)
        >>> to_map(torch.tensor([0.25, 0.75]), coords, 64, (160, 64))[0].tolist()
        [[0.5, 0.5, 1.5, 1.5, 0.0], [0.5, 0.5, 1.5, 1.5, 0.0]]
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, downsample: float | None = 64.0, scaling: str = "none", fill: float = math.nan) -> None:
        if downsample is not None and not 0 < downsample < math.inf:
            raise ValueError(f"`downsample` must be positive, got {downsample!r}.")
        check_choice("scaling", scaling, SCALINGS)
        self.downsample = None if downsample is None else float(downsample)
        self.scaling = scaling
        self.fill = float(fill)

    def __call__(
        self,
        scores: NdarrayOrTensor,
        coords: NdarrayOrTensor,
        tile_size: float,
        spatial_shape: NdarrayOrTensor | tuple[int, int],
        slide_mpp: float | None = None,
        bounds: NdarrayOrTensor | tuple[int, int, int, int] | None = None,
    ) -> MetaTensor:
        """Convert ``scores`` (N,) or (N, A) to a float32 map (A, h, w).

        ``coords`` (N, 2), ``tile_size``, ``spatial_shape`` (width, height) and ``bounds`` (x, y, width, height) are in
        pixels of level 0. Tiles outside of the bounds are not in the map.
        """
        values, corners = _array(scores), _array(coords)
        values = values[:, None] if values.ndim == 1 else values
        edge = float(tile_size)
        down = edge / PIXELS_PER_TILE if self.downsample is None else self.downsample
        width, height = _sides(_array(spatial_shape))
        x, y, *sides = (0.0, 0.0, width, height) if bounds is None else map(float, _array(bounds).tolist())
        _check_map(values, corners, edge, down, (width, height), math.prod(sides))
        shape = (math.ceil(sides[1] / down), math.ceil(sides[0] / down))
        scaled, placed = scale_scores(values, self.scaling), corners - (x, y)
        heat = torch.from_numpy(self._mean(scaled, placed, edge, down, shape))
        # affines of MONAI images have three spatial axes, even in 2D
        affine = torch.diag(torch.tensor([down, down, 1.0, 1.0], dtype=torch.float64))
        affine[:2, 3] = torch.tensor([y, x])
        meta = {
            "downsample": down,
            "scaling": self.scaling,
            "spatial_shape": (width, height),
            "bounds": tuple(map(round, (x, y, *sides))),
            "mpp": None if slide_mpp is None else slide_mpp * down,
            "highest_ratio": _highest_ratio(values),
        }
        return MetaTensor(heat.permute(2, 0, 1).contiguous(), affine=affine, meta=meta)

    def _mean(
        self, values: Scores, corners: Scores, edge: float, down: float, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Compute the mean (h, w, A) of the tiles over each pixel."""
        total = np.zeros((*shape, values.shape[1]))
        count = np.zeros((*shape, 1), dtype=np.int32)
        first = np.ceil(corners / down - 0.5).clip(0).astype(np.int64)
        last = np.ceil((corners + edge) / down - 0.5).clip(0).astype(np.int64)
        # a fixed order, so that the order of the bag does not change the rounding of sums
        for i in np.lexsort((*values.T, corners[:, 0], corners[:, 1])):
            region = np.s_[first[i, 1] : last[i, 1], first[i, 0] : last[i, 0]]
            total[region] += values[i]
            count[region] += 1
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float32] = np.where(count > 0, total / count, self.fill).astype(np.float32)
        return mean


class TileScoresToHeatmapd(MapTransform):
    """Dictionary form of :py:class:`TileScoresToHeatmap`.

    It uses the items ``coords``, ``tile_size`` and ``unit`` and, if available, ``slide_mpp``, ``bounds`` and
    ``spatial_shape``; without the latter, the map ends with the last tiles. It drops padding if there is a ``mask``.

    Args:
        keys: scores (N,) or (N, A) of the tiles.
        names: keys of the maps; by default they replace the scores.
        skip_unplaced: whether to skip items whose coordinates are missing or not in pixels of level 0; the reason is
            stored as ``heatmap_missing``.
        downsample: see :py:class:`TileScoresToHeatmap`.
        scaling: see :py:class:`TileScoresToHeatmap`.
        fill: see :py:class:`TileScoresToHeatmap`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when the coordinates are not in pixels of level 0.
    """

    backend = TileScoresToHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        names: KeysCollection | None = None,
        skip_unplaced: bool = False,
        downsample: float | None = 64.0,
        scaling: str = "none",
        fill: float = math.nan,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = self.keys if names is None else ensure_tuple_rep(names, len(self.keys))
        self.skip_unplaced = skip_unplaced
        self.to_heatmap = TileScoresToHeatmap(downsample, scaling, fill)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the scores of each key to a map."""
        d = dict(data)
        reason = _missing_geometry(d) if self.skip_unplaced else ""
        if reason:
            return {**d, str(BagKeys.HEATMAP_MISSING): reason}
        if d.get(BagKeys.UNIT, "px") != "px":
            raise ValueError(f"`unit` must be 'px', pixels of level 0, got {d[BagKeys.UNIT]!r}.")
        coords, edge = _array(drop_padding(d[BagKeys.COORDS], d)), float(d[BagKeys.TILE_SIZE])
        shape = d.get(BagKeys.SPATIAL_SHAPE)
        shape = _end_of_tiles(coords, edge) if shape is None else shape
        mpp = None if d.get(BagKeys.SLIDE_MPP) is None else float(d[BagKeys.SLIDE_MPP])
        for key, name in self.key_iterator(d, self.names):
            d[name] = self.to_heatmap(drop_padding(d[key], d), coords, edge, shape, mpp, d.get(BagKeys.BOUNDS))
        return d


def _missing_geometry(item: Mapping[Hashable, Any]) -> str:
    """Return the reason why tiles can't be placed on the slide, or an empty string if they can."""
    if "slide_index" in item and BagKeys.COORDS not in item:
        return "the bag has the tiles of several slides of a patient, which have no map together"
    if BagKeys.COORDS not in item or BagKeys.TILE_SIZE not in item:
        return "the features come without coordinates, or without the size of a tile"
    unit = item.get(BagKeys.UNIT)
    return "" if unit == "px" else f"the unit of the coordinates is {unit!r}, and `slide_mpp` is not known"


def _highest_ratio(values: Scores) -> tuple[float, ...] | None:
    """Return the highest of ``values`` (N, A) divided by uniform attention, or None if they are no attention."""
    is_attention = len(values) and (values >= 0).all() and (np.abs(values.sum(axis=0) - 1) < ROUNDING).all()
    return tuple((values.max(axis=0) * len(values)).tolist()) if is_attention else None


def _check_map(
    values: Scores, corners: Scores, edge: float, down: float, sides: tuple[int, int], pixels: float
) -> None:
    if values.ndim != 2 or corners.shape != (len(values), 2):
        raise ValueError(
            f"`scores` must have shape (N,) or (N, A) for `coords` (N, 2), got {values.shape} for {corners.shape}."
        )
    if not down <= edge < math.inf:
        raise ValueError(f"`downsample` must be at most the size of a tile, {edge:g}, got {down:g}.")
    if pixels * values.shape[1] > LARGEST * down**2:
        raise ValueError(
            f"`downsample` must leave a map of at most {LARGEST} values, got {down:g} for a slide of "
            f"{pixels:.0f} pixels and {values.shape[1]} scores a tile."
        )
    # also false for NaN
    inside = ((corners + edge > 0) & (corners < sides)).all(axis=1)
    if not inside.all():
        x, y = corners[~inside][0]
        raise ValueError(
            f"`coords` must be corners of tiles in the slide of {sides[0]} x {sides[1]} pixels, got ({x:g}, {y:g}) "
            f"and {len(corners) - 1 - int(inside.sum())} more outside."
        )


def _end_of_tiles(corners: Scores, edge: float) -> Scores:
    """Return width and height of a slide that ends with its last tiles."""
    if not len(corners) or not np.isfinite(corners).all():
        got = "none" if not len(corners) else "NaN or infinity"
        raise ValueError(f"`coords` must be finite corners of tiles if `spatial_shape` is not known, got {got}.")
    return np.ceil(corners + edge).max(axis=0)


def _sides(spatial_shape: Any) -> tuple[int, int]:
    """Return width and height as integers."""
    sides = np.asarray(spatial_shape, dtype=np.float64)
    if sides.shape != (2,) or not np.isfinite(sides).all() or (sides < 1).any():
        raise ValueError(f"`spatial_shape` must be width and height in pixels, got {sides.tolist()}.")
    return int(sides[0]), int(sides[1])


def _array(values: NdarrayOrTensor) -> Scores:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


TileScoresToHeatmapD = TileScoresToHeatmapDict = TileScoresToHeatmapd
