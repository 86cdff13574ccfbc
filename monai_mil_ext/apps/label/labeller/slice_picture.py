"""Pictures of the slices of a scan."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.transforms.scans.slice_order import SliceOrder
from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.visualize.slice_display import GRAY_PERCENTILES

__all__ = ["SlicePictures"]

Image = optional_dependency("", "PIL.Image")

KEPT = 3  # scans in memory
SIDE = 512  # pixels of the longer side of a picture


class _Slices(NamedTuple):
    gray: NDArray[np.uint8]  # (N, h, w)
    size: tuple[int, int]  # width and height of a picture, in true proportion


class SlicePictures:
    """Pictures of slices in radiological orientation; the last scans are kept in memory.

    Args:
        window: lowest and highest value that is shown; None takes the 0.5 and 99.5 percentiles of the scan.
        plane: plane of the slices.
    """

    def __init__(self, window: tuple[float, float] | None = None, plane: str = "axial") -> None:
        self.window, self.plane = window, plane
        self._kept: OrderedDict[tuple[str, int], _Slices] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, path: str) -> int:
        """Return the number of slices of a scan."""
        return len(self._slices(path).gray)

    def png(self, path: str, number: int) -> bytes:
        """Return a slice as PNG.

        Raises:
            ValueError: when the scan has no such slice.
        """
        slices = self._slices(path)
        if not 0 <= number < len(slices.gray):
            raise ValueError(f"`slice` must be from 0 to {len(slices.gray) - 1}, got {number}.")
        buffer = io.BytesIO()
        Image.fromarray(slices.gray[number]).resize(slices.size, Image.Resampling.BILINEAR).save(buffer, "png")
        return buffer.getvalue()

    def _slices(self, path: str) -> _Slices:
        key = (path, Path(path).stat().st_mtime_ns)
        with self._lock:  # so that the pictures of one page read a scan once
            if key not in self._kept:
                self._kept[key] = self._read(path)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _read(self, path: str) -> _Slices:
        scan = LoadScan(irregular="allow", fill_nan="lowest")(path)
        affine = torch.as_tensor(scan.affine).double()
        order = SliceOrder.of(affine, self.plane)
        slices = order.apply(scan.as_tensor())[0].numpy()
        low, high = self.window or np.percentile(slices, GRAY_PERCENTILES)
        gray = np.clip((slices - low) / max(float(high) - float(low), 1e-6), 0, 1)
        height, width = (slices.shape[i] * float(affine[:3, order.axes[i]].norm()) for i in (1, 2))
        zoom = SIDE / max(height, width)
        size = max(1, round(width * zoom)), max(1, round(height * zoom))
        return _Slices(np.round(gray * 255).astype(np.uint8), size)
