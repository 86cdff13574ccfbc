"""From scores of tiles back to a map of the slide."""

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
from monai.utils.enums import TransformBackends
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from monai_mil_ext.utils import BagKeys, check_choice

__all__ = ["TileScoresToHeatmap", "TileScoresToHeatmapD", "TileScoresToHeatmapDict", "TileScoresToHeatmapd"]

COORDS, TILE_SIZE, UNIT, SLIDE_MPP = "coords", "tile_size", "unit", "slide_mpp"
LARGEST = 2**28  # pixels
Scores = NDArray[np.float64]


class TileScoresToHeatmap(Transform):
    r"""Put scores of tiles where the tiles lie: the way back from :py:class:`monai_mil_ext.transforms.TileBag`.

    A pixel of the map has the mean score of all tiles that its middle lies in. At a downsample of d, pixel (r, c) has
    its middle at :math:`((c + 1/2) d, (r + 1/2) d)` in pixels of level 0, counted from the corner of the slide.

    The map has an affine, which takes (r, c) to (y, x) of level 0 with the middle of its first pixel at (0, 0), and in
    its meta data ``downsample``, ``scaling``, ``spatial_shape`` (width and height of the slide), and ``mpp``,
    micrometres per pixel of the map, or None.

    Args:
        downsample: pixels of level 0 to one of the map, along a side; at most the size of a tile, none of which is then
            lost.
        scaling: ``"none"``; ``"ratio"`` to uniform, the score times the number of tiles, so that 1 is as much as
            everywhere; ``"percentile"``, how many per cent of the tiles score lower, of those equal to it half.
        fill: where there is no tile.

    Raises:
        ValueError: when an option is not allowed, ``coords`` and ``scores`` differ in number, or the map would be
            larger than memory is likely to hold.

    Example:
        >>> coords = torch.tensor([[0, 0], [64, 0]])
        >>> to_map = TileScoresToHeatmap(downsample=32, scaling="ratio", fill=0.0)
        >>> to_map(torch.tensor([0.25, 0.75]), coords, 64, (160, 64))[0].tolist()
        [[0.5, 0.5, 1.5, 1.5, 0.0], [0.5, 0.5, 1.5, 1.5, 0.0]]
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, downsample: float = 64.0, scaling: str = "none", fill: float = math.nan) -> None:
        if not 0 < downsample < math.inf:
            raise ValueError(f"`downsample` must be positive, got {downsample!r}.")
        check_choice("scaling", scaling, ["none", "ratio", "percentile"])
        self.downsample = float(downsample)
        self.scaling = scaling
        self.fill = float(fill)

    def __call__(
        self,
        scores: NdarrayOrTensor,
        coords: NdarrayOrTensor,
        tile_size: float,
        spatial_shape: NdarrayOrTensor | tuple[int, int],
        slide_mpp: float | None = None,
    ) -> MetaTensor:
        """Turn ``scores`` (N,) or (N, A) into a float32 map (A, h, w).

        ``coords`` (N, 2), ``tile_size`` and ``spatial_shape`` (width, height) are in pixels of level 0.
        """
        values, corners = _array(scores), _array(coords)
        values = values[:, None] if values.ndim == 1 else values
        edge = float(tile_size)
        width, height = (int(side) for side in spatial_shape)
        self._check(values, corners, edge, width * height)
        shape = (math.ceil(height / self.downsample), math.ceil(width / self.downsample))
        heat = torch.from_numpy(self._mean(self._scaled(values), corners, edge, shape)).permute(2, 0, 1).contiguous()
        # MONAI's images have three axes of space in their affine, whatever they are
        affine = torch.diag(torch.tensor([self.downsample, self.downsample, 1.0, 1.0], dtype=torch.float64))
        meta = {
            "downsample": self.downsample,
            "scaling": self.scaling,
            "spatial_shape": (width, height),
            "mpp": None if slide_mpp is None else slide_mpp * self.downsample,
        }
        return MetaTensor(heat, affine=affine, meta=meta)

    def _check(self, values: Scores, corners: Scores, edge: float, pixels: int) -> None:
        if values.ndim != 2 or corners.shape != (len(values), 2):
            raise ValueError(
                f"`scores` must have shape (N,) or (N, A) for `coords` (N, 2), got {values.shape} for {corners.shape}."
            )
        if not self.downsample <= edge < math.inf:
            raise ValueError(f"`downsample` must be at most the size of a tile, {edge:g}, got {self.downsample:g}.")
        if pixels * values.shape[1] > LARGEST * self.downsample**2:
            raise ValueError(
                f"`downsample` must leave a map of at most {LARGEST} values, got {self.downsample:g} for a slide of "
                f"{pixels} pixels and {values.shape[1]} scores a tile."
            )

    def _scaled(self, values: Scores) -> Scores:
        if self.scaling == "ratio":
            return values * len(values)
        if self.scaling == "percentile" and len(values):
            percent: Scores = (rankdata(values, axis=0) - 0.5) * 100 / len(values)
            return percent
        return values

    def _mean(self, values: Scores, corners: Scores, edge: float, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Mean (h, w, A) of the tiles over each pixel."""
        total = np.zeros((*shape, values.shape[1]))
        count = np.zeros((*shape, 1), dtype=np.int32)
        first = np.ceil(corners / self.downsample - 0.5).clip(0).astype(np.int64)
        last = np.ceil((corners + edge) / self.downsample - 0.5).clip(0).astype(np.int64)
        # in an order of their own, so that the order of the bag does not even change how sums are rounded
        for i in np.lexsort((*values.T, corners[:, 0], corners[:, 1])):
            place = np.s_[first[i, 1] : last[i, 1], first[i, 0] : last[i, 0]]
            total[place] += values[i]
            count[place] += 1
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float32] = np.where(count > 0, total / count, self.fill).astype(np.float32)
        return mean


class TileScoresToHeatmapd(MapTransform):
    """Dictionary form of :py:class:`TileScoresToHeatmap`.

    It reads ``coords``, ``tile_size``, ``unit`` and ``spatial_shape``, and where there is a ``slide_mpp``, that; where
    there is a ``mask``, it drops the padding.

    Args:
        keys: scores (N,) or (N, A) of the tiles.
        downsample: see :py:class:`TileScoresToHeatmap`.
        scaling: see :py:class:`TileScoresToHeatmap`.
        fill: see :py:class:`TileScoresToHeatmap`.
        allow_missing_keys: whether to pass over a key that is not there.

    Raises:
        ValueError: when the coordinates are not in pixels of level 0.
    """

    backend = TileScoresToHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        downsample: float = 64.0,
        scaling: str = "none",
        fill: float = math.nan,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.to_heatmap = TileScoresToHeatmap(downsample, scaling, fill)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn the scores of every key into a map."""
        d = dict(data)
        if d.get(UNIT, "px") != "px":
            raise ValueError(f"`unit` must be 'px', pixels of level 0, got {d[UNIT]!r}.")
        coords = _array(d[COORDS])
        mask = _array(d[BagKeys.MASK]).astype(bool) if BagKeys.MASK in d else np.ones(len(coords), dtype=bool)
        where = coords[mask], float(d[TILE_SIZE]), d[BagKeys.SPATIAL_SHAPE], d.get(SLIDE_MPP)
        for key in self.key_iterator(d):
            d[key] = self.to_heatmap(_array(d[key])[mask], *where)
        return d


def _array(values: NdarrayOrTensor) -> Scores:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


TileScoresToHeatmapD = TileScoresToHeatmapDict = TileScoresToHeatmapd
