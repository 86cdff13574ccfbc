"""Hounsfield units through the windows of a radiologist, each a channel."""

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
    r"""Show an image in Hounsfield units through several windows, each in [0, 1] and a channel of its own.

    .. math:: y = \min(1, \max(0, (x - c) / w + 1/2))

    for centre c and width w, the ``LINEAR_EXACT`` function of DICOM. With W windows, C channels become W C: all of the
    first window, then all of the second, ... The order is the same whether the windows come before
    :py:class:`monai_mil_ext.transforms.SliceBag` takes neighbours or after it.

    ``PRESETS``, as (centre, width): *brain* (40, 80), *stroke* (40, 40), *subdural* (80, 200), *bone* (600, 2800), of
    the skull, *mediastinum* (50, 350), *abdomen* (50, 400), *liver* (30, 150), values or ranges of Radiopaedia; *lung*
    (-600, 1500), the same there, and *pe* (100, 700) are those of the RSNA pulmonary embolism set.

    Args:
        windows: names of presets, or pairs (centre, width) in HU, or both.
        channel_dim: axis of the channels: 0 for a scan (C, X, Y, Z), 1 for a bag (N, C, h, w).

    Raises:
        ValueError: when there is no window, one is no preset and no pair, or a width is not positive.

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
        """Show ``image`` (C, ...), or (N, C, ...), through every window, in float32."""
        shown = [scale(image) for scale in self._scale]
        channels = torch.cat([_plain(one) for one in shown], dim=self.channel_dim)
        result: Tensor = convert_to_dst_type(channels, shown[0])[0]
        return result


class CTWindowsd(MapTransform):
    """Dictionary form of :py:class:`CTWindows`.

    Args:
        keys: images in Hounsfield units.
        windows: see :py:class:`CTWindows`.
        channel_dim: see :py:class:`CTWindows`.
        allow_missing_keys: whether to pass over a key that is not there.
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
        self.show = CTWindows(windows, channel_dim)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Show the image of every key through every window."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.show(d[key])
        return d


def _window(window: str | Sequence[float]) -> tuple[float, float]:
    if isinstance(window, str):
        check_choice("windows", window, CTWindows.PRESETS)
        return CTWindows.PRESETS[window]
    if len(window) != 2 or not all(map(math.isfinite, window)) or window[1] <= 0:
        raise ValueError(f"`windows` must be presets or (centre, width) in HU with a positive width, got {window!r}.")
    return float(window[0]), float(window[1])


def _plain(values: Tensor) -> Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else values


CTWindowsD = CTWindowsDict = CTWindowsd
