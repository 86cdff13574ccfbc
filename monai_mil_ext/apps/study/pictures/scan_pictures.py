"""Pictures of scans: the slices with the most attention, the stack and the curve, as in inference."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.transforms import Compose
from numpy.typing import NDArray

from monai_mil_ext.data import FeatureCache
from monai_mil_ext.transforms import EncodeInstancesd
from monai_mil_ext.utils import RESEARCH_USE, BagKeys
from monai_mil_ext.utils.exceptions import case_error
from monai_mil_ext.visualize import SliceDisplay, plot_slice_scores

__all__ = ["ScanPictures", "to_jpeg"]

DPI, QUALITY = 85, 80


class ScanPictures:
    """Function that draws the slices of a case with the most attention, for the report of a study.

    It reads the scan again by the steps of the preprocessing before the encoder. A case whose scan is missing, can't be
    read or has other slices than its features has no picture.

    Args:
        features: cache that made the features of the cases in this process.
        top_k: number of slices.
    """

    def __init__(self, features: FeatureCache, top_k: int = 4) -> None:
        self.features, self.top_k = features, top_k
        steps = Compose(features.transform).flatten().transforms
        encoding = next((i for i, step in enumerate(steps) if isinstance(step, EncodeInstancesd)), len(steps))
        self.read = Compose(steps[:encoding])

    def __call__(self, item: Mapping[str, Any], attention: NDArray[Any]) -> list[bytes]:
        """Return one picture as JPEG, or none.

        Args:
            item: item of the features of a scan.
            attention: attention (N,) of its slices.
        """
        given = self.features.input_of(item["image"]) if isinstance(item["image"], str) else None
        if given is None:
            return []
        try:
            return [to_jpeg(self._plot(dict(self.read(given)), attention))]
        except Exception as error:
            if case_error(error) is None:
                raise
            return []

    def _plot(self, scan: dict[Any, Any], attention: NDArray[Any]) -> Any:
        """Return the figure of slices as the encoder saw them, and of their reference, if there is one."""
        slices, reference = _middle_channel(scan["image"]), scan.get("reference")
        masks = None if reference is None else _middle_channel(reference) > 0
        slices, display = SliceDisplay.of(scan, slices.shape[1:]).fit_gray(slices)
        position = np.asarray(scan[BagKeys.POSITION], dtype=float)
        return plot_slice_scores(
            np.asarray(attention, dtype=float), position, slices, masks, self.top_k, "", "", display
        )


def _middle_channel(images: Any) -> NDArray[Any]:
    """Return (N, h, w) of images (N, C, h, w)."""
    return np.asarray(images[:, images.shape[1] // 2])


def to_jpeg(figure: Any, dpi: int = DPI) -> bytes:
    """Return a figure as JPEG, with "research use only" as its comment."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, pil_kwargs={"quality": QUALITY, "comment": RESEARCH_USE})
    return buffer.getvalue()
