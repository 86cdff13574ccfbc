"""Transforms that scale the intensity of a scan without Hounsfield units by the voxels of the body."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy, convert_to_tensor
from monai.utils.enums import TransformBackends
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ScaleBodyIntensity", "ScaleBodyIntensityD", "ScaleBodyIntensityDict", "ScaleBodyIntensityd"]

DEFAULTS = {"percentile": (1.0, 99.0), "zscore": (3.0,)}
FORM = re.compile(r"(?P<name>[a-z]+)\s*(?:\((?P<numbers>[^()]*)\))?")
MAX_VOXELS = 2**20  # of a sorted scan with more, every k-th voxel is used
FLOOR = 0.001  # part of the voxels that may lie below the level of air, such as overshoots of a resampling
BRIGHT = 0.995  # brighter voxels, such as artifacts, do not count in the choice of the threshold
AIR = 0.25  # greatest ratio of the medians of the darker and the brighter class at which the darker one is air
NOISE = 6.0  # deviations of air below its median, by which the body lies above it: 4.7 sd of Rayleigh noise
DEPTH = 5  # number of times that the darker class is divided again


class ScaleBodyIntensity(Transform):
    r"""Scale a scan in arbitrary units, such as MR, to [0, 1] by the intensities inside the body.

    *Percentiles* map the body's 1st and 99th percentile to 0 and 1; what lies beyond is clipped:

    .. math:: y = \min(1, \max(0, (x - p_1) / (p_{99} - p_1)))

    The *z-score* maps the body's mean to 1/2 and three standard deviations to either side of it to 0 and 1.

    The result does not depend on scale and offset of the scanner, on orientation, or on how much air surrounds the
    body. The body is every voxel above the noise of the air. To find the air, Otsu's method divides the voxels above
    the lowest value into two classes, then the darker one again, and so on; air is the last darker class whose median
    is less than a quarter of that of its brighter class, both measured from the lowest value. Without such a class, as
    in a skull-stripped brain, the body is every voxel above the lowest value. Should all voxels of the body be equal,
    its range is that of the scan.

    Each channel is scaled on its own.

    Args:
        mode: ``"percentile"`` or ``"zscore"``. Other percentiles, or another number of standard deviations, follow in
            parentheses: ``"percentile(0.5, 99.5)"``, ``"zscore(4)"``. The record of a model states the mode in this
            form.

    Raises:
        ValueError: if ``mode`` is none of them, or a scan has voxels that are not finite or all equal.

    References:
        Otsu, "A threshold selection method from gray-level histograms", doi:10.1109/TSMC.1979.4310076

    Example:
        >>> scan = torch.zeros(1, 4, 4, 4)
        >>> scan[:, 1:3, 1:3, 1:3] = torch.arange(100.0, 108.0).view(2, 2, 2)
        >>> scaled = ScaleBodyIntensity()(scan)
        >>> torch.equal(ScaleBodyIntensity()(4 * scan - 64), scaled), scaled.min().item(), scaled.max().item()
        (True, 0.0, 1.0)
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, mode: str = "percentile") -> None:
        self.mode, self.numbers = _parse(mode)

    @staticmethod
    def mode_of(normalization: str | None) -> str | None:
        """Return the mode that makes a recorded normalization, or None for that of another transform.

        Example:
            >>> ScaleBodyIntensity.mode_of("zscore(3)"), ScaleBodyIntensity.mode_of("NormalizeIntensity()")
            ('zscore(3)', None)
        """
        try:
            _parse(normalization)
        except ValueError:
            return None
        return normalization

    def __call__(self, image: NdarrayOrTensor) -> Tensor:
        """Scale ``image`` (C, ...) and return float32."""
        tensor = convert_to_tensor(image, track_meta=get_track_meta())
        channels = [self._scale(channel) for channel in convert_to_numpy(tensor)]
        result: Tensor = convert_to_dst_type(np.stack(channels), tensor, dtype=torch.float32)[0]
        return result

    def _scale(self, channel: NDArray[Any]) -> NDArray[np.float32]:
        if channel.dtype.kind != "f":
            channel = channel.astype(np.float64)
        voxels = np.sort(channel, axis=None)  # a sorted scan is the same for every orientation
        if not np.isfinite(voxels[[0, -1]]).all():
            raise ValueError("`image` must have finite voxels, got some that are NaN or infinite.")
        if voxels[0] == voxels[-1]:
            raise ValueError(f"`image` must have voxels that differ, got {voxels[0]:g} in all of them.")
        low, high = self._range(voxels[:: max(1, len(voxels) // MAX_VOXELS)].astype(np.float64))
        if not low < high:
            low, high = float(voxels[0]), float(voxels[-1])
        scaled = channel - low  # in the type of the scan, since a large one is slow in float64
        scaled /= high - low
        result: NDArray[np.float32] = scaled.clip(0, 1, out=scaled).astype(np.float32, copy=False)
        return result

    def _range(self, voxels: NDArray[np.float64]) -> tuple[float, float]:
        """Return the values that become 0 and 1, from sorted voxels."""
        body = _body(voxels)
        if self.mode == "zscore":
            reach = self.numbers[0] * float(body.std())
            return float(body.mean()) - reach, float(body.mean()) + reach
        low, high = np.percentile(body, self.numbers)
        return float(low), float(high)


class ScaleBodyIntensityd(MapTransform):
    """Dictionary form of :py:class:`ScaleBodyIntensity`.

    Args:
        keys: scans (C, X, Y, Z).
        mode: see :py:class:`ScaleBodyIntensity`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = ScaleBodyIntensity.backend

    def __init__(self, keys: KeysCollection, mode: str = "percentile", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = ScaleBodyIntensity(mode)

    @property
    def source_values(self) -> dict[str, str]:
        """Return what this transform determines of a :py:class:`monai_mil_ext.data.InstanceSource`."""
        numbers = ", ".join(f"{number:g}" for number in self.scale.numbers)
        return {"normalization": f"{self.scale.mode}({numbers})"}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale the scan of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.scale(d[key])
        return d


def _parse(mode: Any) -> tuple[str, tuple[float, ...]]:
    """Return the name and the numbers of a mode."""
    match = FORM.fullmatch(str(mode).strip())
    if match and match["name"] in DEFAULTS:
        name = match["name"]
        try:
            numbers = DEFAULTS[name] if match["numbers"] is None else tuple(map(float, match["numbers"].split(",")))
        except ValueError:
            numbers = ()
        if name == "percentile" and len(numbers) == 2 and 0 <= numbers[0] < numbers[1] <= 100:
            return name, numbers
        if name == "zscore" and len(numbers) == 1 and 0 < numbers[0] < np.inf:
            return name, numbers
    raise ValueError(
        "`mode` must be 'percentile' or 'zscore', or one with numbers, such as 'percentile(0.5, 99.5)' or 'zscore(4)', "
        f"got {mode!r}."
    )


def _body(voxels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return those of sorted voxels that are above the air."""
    above = voxels[np.searchsorted(voxels, voxels[0], side="right") :]
    floor = voxels[int(FLOOR * (len(voxels) - 1))]
    clipped = np.minimum(above, above[int(BRIGHT * (len(above) - 1))])
    size = end = len(above)
    for _ in range(DEPTH):
        split = _otsu(clipped[:size])
        if not split:
            break
        dark, bright = (float(np.median(part)) - floor for part in (clipped[:split], clipped[split:size]))
        size, end = split, split if dark < AIR * bright else end
    if end == len(above):
        return above
    median, lower = above[end // 2], above[int(0.1587 * (end - 1))]
    start = int(np.searchsorted(above, median + NOISE * (median - lower), side="right"))
    return above[min(start, end) :]


def _otsu(values: NDArray[np.float64]) -> int:
    """Return how many of sorted values are in the darker class, by the greatest variance between the classes."""
    centered = values - values.mean()
    sums = centered.cumsum()[:-1]
    counts = np.arange(1, len(values))
    distinct = values[1:] > values[:-1]
    if not distinct.any():
        return 0
    between = np.where(distinct, sums**2 / (counts * (len(values) - counts)), -1.0)
    return int(between.argmax()) + 1


ScaleBodyIntensityD = ScaleBodyIntensityDict = ScaleBodyIntensityd
