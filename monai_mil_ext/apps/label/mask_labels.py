"""Labels of scans and of slices that readers' masks imply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from torch import Tensor

from monai_mil_ext.transforms.scans.slice_order import SliceOrder

from .errors import http_error

__all__ = ["MASK_ENDINGS", "MaskRule", "slice_labels"]

MASK_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".bin")
NONEMPTY, NAMES = "nonempty", "names"
SAME_MM = 0.05  # largest distance of a slice of the mask from that of the scan


class MaskRule:
    """Rule by which a mask, as 3D Slicer and OHIF send it, is a label of its scan.

    Args:
        mode: ``"nonempty"``: a mask with a voxel means the second class and one without means the first.
            ``"names"``: a mask means the class whose name is that of its segment with voxels. ``None``: no mask is a
            label of a scan.
        class_names: names of the classes of each model.

    Raises:
        ValueError: for another mode, and for ``"nonempty"`` with a model of more than two classes.
    """

    def __init__(self, mode: str | None, class_names: Sequence[Sequence[str]]) -> None:
        if mode not in (None, NONEMPTY, NAMES):
            raise ValueError(f"`mask_label` must be {NONEMPTY} or {NAMES}, got {mode!r}.")
        wide = [list(names) for names in class_names if len(names) != 2]
        if mode == NONEMPTY and wide:
            raise ValueError(f"`mask_label` must be {NAMES} for models without two classes, got {wide[0]}.")
        self.mode = mode
        self.class_names = {name.lower(): name for names in class_names for name in names}

    def __call__(self, file: str, info: Mapping[str, Any]) -> int | str | None:
        """Return the label that a mask means, or None.

        Args:
            file: file of the mask; other files mean nothing.
            info: info of the mask; ``label_info`` lists ``name`` and, unless segments are numbered in this order,
                ``idx`` of each.

        Raises:
            HTTPException: 400 for a mask that is unreadable, or that has voxels of several classes.
        """
        if self.mode is None or not file.lower().endswith(MASK_ENDINGS):
            return None
        values = _values(file)
        if self.mode == NONEMPTY:
            return int(bool(values))
        found = sorted({name for name in _segments(info, values) if name.lower() in self.class_names})
        if len(found) > 1:
            raise http_error(f"`label` must have voxels of one class, got those of {found}.")
        return self.class_names[found[0].lower()] if found else None


def slice_labels(file: str, plane: str, index: Sequence[int], position_mm: Sequence[float]) -> Tensor:
    """Return whether a mask has a voxel in each slice of a scan, as zeros and ones (N,).

    Args:
        file: file of the mask.
        plane: plane of the slices.
        index: numbers of the slices.
        position_mm: positions of the slices.

    Raises:
        ValueError: when the mask has other slices.
    """
    mask = LoadImage(image_only=True)(file)
    mask = mask[..., 0] if mask.ndim == 4 else mask
    order = SliceOrder.of(mask.affine, plane)
    rows = order.positions(mask.affine.double(), mask.shape)
    where, expected = torch.as_tensor(list(index)), torch.as_tensor(list(position_mm), dtype=torch.float64)
    if len(where) == 0 or int(where.max()) >= len(rows) or float((rows[where] - expected).abs().max()) > SAME_MM:
        raise ValueError("`label` must be a mask with the slices of the scan.")
    volume = mask.as_tensor() if isinstance(mask, MetaTensor) else mask
    return order.apply(volume[None] != 0)[0].flatten(1).any(1)[where].int()


def _values(file: str) -> set[int]:
    """Return the values of a mask other than 0."""
    try:
        if Path(file).suffix == ".bin":
            values = np.unique(np.fromfile(file, np.uint16))
        else:
            values = np.unique(np.asarray(LoadImage(image_only=True)(file)))
    except Exception as error:  # of any of the libraries that read masks
        raise http_error("`label` must be a readable mask.") from error
    return {int(value) for value in values if value}


def _segments(info: Mapping[str, Any], values: set[int]) -> list[str]:
    """Return the names of the segments with voxels."""
    segments = info.get("label_info") or []
    entries = [entry for entry in segments if isinstance(entry, Mapping)] if isinstance(segments, list) else []
    return [str(e.get("name", "")).strip() for number, e in enumerate(entries, 1) if e.get("idx", number) in values]
