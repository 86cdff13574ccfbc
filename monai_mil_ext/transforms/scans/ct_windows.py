"""Transforms that apply CT windows to images in Hounsfield units."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRange, Transform
from monai.utils import convert_to_dst_type
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import check_choice

__all__ = ["CTWindows", "CTWindowsD", "CTWindowsDict", "CTWindowsd"]


class CTWindows(Transform):
    r"""Apply several CT windows to an image in Hounsfield units, each of which becomes a channel in [0, 1].

    .. math:: y = \min(1, \max(0, (x - c) / w + 1/2))

    for center c and width w, the ``LINEAR_EXACT`` function of DICOM. With W windows, C channels become W C: all
    channels of the first window, then all of the second, and so on. The order is the same whether this transform
    precedes or follows a :py:class:`monai_mil_ext.transforms.SliceBag` with neighboring slices.

    ``PRESETS`` as (center, width): *brain* (40, 80), *stroke* (40, 40), *subdural* (80, 200), *bone* (600, 2800)
    of the skull, *mediastinum* (50, 350), *abdomen* (50, 400) and *liver* (30, 150) are values or lie in ranges of
    Radiopaedia; *lung* (-600, 1500), also in Radiopaedia, and *pe* (100, 700) are those of the RSNA pulmonary embolism
    data set.

    Args:
        windows: names of presets, pairs (center, width) in HU, or a mix of both.
        channel_dim: axis of the channels: 0 for a scan (C, X, Y, Z), 1 for a bag (N, C, h, w).

    Raises:
        ValueError: if ``windows`` is empty, or a window is neither a preset nor a pair with a positive width.

    References:
        Murphy, Baxter, "Windowing (CT)", Radiopaedia.org, reference article.
        Pan, "RSNA-STR Pulmonary Embolism Detection", Kaggle, discussion 182930.
        DICOM PS3.3, C.11.2.1.3.2.

    Example:
        >>> CTWindows(["brain", (100, 200)])(torch.tensor([[0.0, 40.0, 100.0]])).as_tensor()
        tensor([[0.0000, 0.5000, 1.0000],
                [0.0000, 0.2000, 0.5000]])
    """

    backend = [TransformBackends.TORCH]

    PRESETS = {
        "abdomen": (50, 400),
        "bone": (600, 2800),
        "brain": (40, 80),
        "liver": (30, 150),
        "lung": (-600, 1500),
        "mediastinum": (50, 350),
        "pe": (100, 700),
        "stroke": (40, 40),
        "subdural": (80, 200),
    }

    def __init__(self, windows: Sequence[str | Sequence[float]], channel_dim: int = 0) -> None:
        if isinstance(windows, str) or not len(windows):
            raise ValueError(f"`windows` must be a list of windows, got {windows!r}.")
        self.windows = [_window(window) for window in windows]
        self.channel_dim = channel_dim
        self._scale = [ScaleIntensityRange(c - w / 2, c + w / 2, 0.0, 1.0, clip=True) for c, w in self.windows]

    def __call__(self, image: NdarrayOrTensor) -> Tensor:
        """Apply every window to ``image`` (C, ...) or (N, C, ...) and return float32."""
        windowed = [scale(image) for scale in self._scale]
        channels = torch.cat([_plain(image) for image in windowed], dim=self.channel_dim)
        result: Tensor = convert_to_dst_type(channels, windowed[0])[0]
        return result


class CTWindowsd(MapTransform):
    """Dictionary form of :py:class:`CTWindows`.

    Args:
        keys: images in Hounsfield units.
        windows: see :py:class:`CTWindows`.
        channel_dim: see :py:class:`CTWindows`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = CTWindows.backend

    def __init__(
        self,
        keys: KeysCollection,
        windows: Sequence[str | Sequence[float]],
        channel_dim: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.apply_windows = CTWindows(windows, channel_dim)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply the windows to the image of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.apply_windows(d[key])
        return d


def _window(window: str | Sequence[float]) -> tuple[float, float]:
    if isinstance(window, str):
        check_choice("windows", window, CTWindows.PRESETS)
        return CTWindows.PRESETS[window]
    try:
        center, width = map(float, window)
    except (TypeError, ValueError):
        center, width = math.nan, math.nan
    if not (math.isfinite(center) and 0 < width < math.inf):
        raise ValueError(f"`windows` must be presets or (center, width) in HU with a positive width, got {window!r}.")
    return center, width


def _plain(values: Tensor) -> Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else values


CTWindowsD = CTWindowsDict = CTWindowsd
