"""Reader of scans slice by slice in the order of a table, for series that are not a regular stack."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai_mil_ext.data.cohorts.table_file import read_table
from monai_mil_ext.utils import as_range
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from torch import Tensor
from torch.nn import functional

__all__ = ["LoadSliceTabled"]

COLUMNS = ("file", "place", "instance_label")


class LoadSliceTabled(MapTransform):
    r"""Load the DICOM slices of a table, in its order, as a bag (N, 1, size, size).

    .. math:: \mathrm{HU} = \text{pixel} \cdot \text{slope} + \text{intercept}

    Values are clamped to ``hu_window``, padded to a square with the smallest value of the scan, and resized (bilinear,
    antialiased). Tilted gantries and uneven steps, which a volume can't have, are accepted. The items ``position``
    (column ``place`` of the table), ``slice_index``, ``instance_label``, ``lowest`` and ``highest`` are added.

    Args:
        keys: items with the path of a table with the columns ``file``, ``place`` and ``instance_label``.
        root: folder of the files of the table; no path may lead out of it.
        spatial_size: height and width of a slice.
        hu_window: lowest and highest value in HU; None does not clamp.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when the table lacks a column, or a file is outside of ``root``, missing, damaged or of another size
            than the first. The message contains the number of the slice, not its path.
    """

    def __init__(
        self,
        keys: KeysCollection,
        root: str,
        spatial_size: int = 224,
        hu_window: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.root = _Root(root)
        self.spatial_size = spatial_size
        self.hu_window = None if hu_window is None else as_range(hu_window=hu_window)

    @property
    def source_values(self) -> dict[str, Any]:
        """Window, or the lack of one, and size of the slices, for the record of a model."""
        window = {"normalization": "none"} if self.hu_window is None else {"window": self.hu_window}
        return {"spatial_size": self.spatial_size, **window}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the scan of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            table = read_table(d[key])
            if not set(COLUMNS) <= set(table.columns):
                raise ValueError(f"`{key!s}` must be a table with the columns {COLUMNS}, got {table.columns}.")
            d[key], d["lowest"], d["highest"] = self._bag([row["file"] for row in table.rows])
            d["position"] = torch.tensor([float(row["place"]) for row in table.rows])
            d["slice_index"] = torch.arange(len(table.rows))
            d["instance_label"] = torch.tensor([int(row["instance_label"]) for row in table.rows])
        return d

    def _bag(self, files: Sequence[str]) -> tuple[Tensor, float, float]:
        """Return the slices, and the lowest and the highest value before the window."""
        slices = [_hounsfield(self.root.find(name), k) for k, name in enumerate(files)]
        sizes = {image.shape for image in slices}
        if len(sizes) > 1:
            raise ValueError(f"`image` must have slices of one size, got {sorted(sizes)}.")
        bag = torch.from_numpy(np.stack(slices)).unsqueeze(1)
        low, high = (float(value) for value in bag.aminmax())
        if self.hu_window is not None:
            bag = bag.clamp(*self.hu_window)
        height, width = bag.shape[-2:]
        top, left = (max(height, width) - height) // 2, (max(height, width) - width) // 2
        padding = (left, max(height, width) - width - left, top, max(height, width) - height - top)
        square = functional.pad(bag, padding, value=float(bag.min()))
        size = (self.spatial_size, self.spatial_size)
        return functional.interpolate(square, size=size, mode="bilinear", antialias=True), low, high


class _Root:
    """Folder whose path is not in ``__dict__`` and so not in a fingerprint, since features do not depend on it."""

    __slots__ = ("__dict__", "_path")

    def __init__(self, path: str) -> None:
        self._path = Path(path).resolve()

    def find(self, name: str) -> Path:
        path = (self._path / name).resolve()
        if not path.is_relative_to(self._path):
            raise ValueError(f"`file` must lie in the folder of the scans, got {name!r}.")
        return path


def _hounsfield(path: Path, number: int) -> np.ndarray[Any, Any]:
    try:
        ds = dcmread(path)
        return (ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)).astype(np.float32)
    except (OSError, EOFError, InvalidDicomError, AttributeError, ValueError) as error:
        reason = type(error).__name__  # the text of the error may contain the path
        raise ValueError(f"`image` must have readable slices, got {reason} for slice {number}.") from None
