"""Transforms that load a scan with strict checks and without patient data."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import ScanReader
from monai_mil_ext.data.scans.slice_stack import IRREGULAR
from monai_mil_ext.transforms.bags.check_source import as_flag, scan_facts
from monai_mil_ext.utils import BagKeys, InputError, check_choice

__all__ = ["LoadScan", "LoadScanD", "LoadScanDict", "LoadScand", "check_hounsfield"]

LOWEST = "lowest"
FILL_LOWEST = f"--fill_nan {LOWEST}"
NORMALIZE = "--normalization percentile"  # option for scans without Hounsfield units
MIN_SPAN = 100.0  # HU; the values of a CT differ by more
# part of the highest value below zero that a CT exceeds, since fat has -100 HU and bone 1500; noise of MR does not
AIR_PART = 0.06
MAX_BONE = 3000.0  # HU; metal is brighter


class LoadScan(Transform):
    """Load a scan from a DICOM folder or a file as a float32 :py:class:`monai.data.MetaTensor` (1, X, Y, Z).

    Unlike :py:class:`monai.transforms.LoadImage`, it refuses ambiguous or damaged scans, see
    :py:class:`monai_mil_ext.data.ScanReader`. The metadata have no DICOM tags and paths, but affine (RAS, mm), spacing
    and shape, the ``lowest`` and ``highest`` value of the scan, ``container`` and ``notes`` and, for DICOM,
    ``modality`` and ``instance_number``.

    Args:
        series: UID, description or number of the series to load from a DICOM folder with several.
        hounsfield: whether the scan must have Hounsfield units, since the next transform is a window of CT. A scan of
            another modality is then refused, and so is one whose values, such as 0 to 255, can't be those of a CT.
        stack: number or name of the stack to load from a series with several, as the error of such a series lists them.
        irregular: ``"refuse"``, ``"allow"`` or ``"resample"`` for a DICOM series with gaps, varying steps or a tilted
            gantry, see :py:class:`monai_mil_ext.data.ScanReader`.
        fill_nan: value of voxels that are NaN, such as the background of a skull-stripped brain: a number, or
            ``"lowest"`` for the lowest value of the scan; ``None`` refuses them. The ``notes`` of the metadata state
            how many were filled.

    Raises:
        FileNotFoundError: if the scan does not exist.
        ValueError: if it is not a single 3D scalar scan with finite voxels, has no Hounsfield units although they are
            required, or ``fill_nan`` is neither a finite number nor ``"lowest"``.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        series: str | None = None,
        hounsfield: bool = False,
        stack: str | int | None = None,
        irregular: str = "refuse",
        fill_nan: float | str | None = None,
    ) -> None:
        check_choice("irregular", irregular, IRREGULAR)
        self.series = series
        self.stack = stack
        self.hounsfield = as_flag(hounsfield, "hounsfield")
        self.irregular = irregular
        self.fill_nan = _as_fill(fill_nan)

    def __call__(
        self, path: str | os.PathLike[str], series: str | None = None, stack: str | int | None = None
    ) -> MetaTensor:
        """Load the scan at ``path``; ``series`` and ``stack`` override those of the constructor."""
        # passed in the call, because LoadImage tries other readers if one passed to its constructor raises
        reader = ScanReader(series or self.series, self.stack if stack is None else stack, self.irregular)
        image: MetaTensor = _load_image()(path, reader=reader)
        image.meta.pop("filename_or_obj", None)
        try:
            _state_range(image, self.fill_nan)
            if self.hounsfield:
                facts = scan_facts(image.meta)
                check_hounsfield(facts.get("modality", "CT"), facts["lowest"], facts["highest"])
        except InputError as error:
            error.add_facts(str(image.meta.get(BagKeys.CONTAINER, "")), image.shape[1:], _spacing(image))
            raise
        return image


def _as_fill(fill_nan: Any) -> float | str | None:
    """Return a value for voxels that are NaN; a record states a number as text."""
    if fill_nan is None or fill_nan == LOWEST:
        return fill_nan
    try:
        value = math.nan if isinstance(fill_nan, bool) else float(fill_nan)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"`fill_nan` must be a finite number, 'lowest' or None, got {fill_nan!r}.")
    return value


def _state_range(image: MetaTensor, fill_nan: float | str | None) -> None:
    """State the range of the values, and fill NaN in place; refuse it if it is not to be filled, and infinite ones."""
    voxels = image.as_tensor()
    image.meta["lowest"], image.meta["highest"] = (float(value) for value in voxels.aminmax())
    if math.isfinite(image.meta["lowest"]) and math.isfinite(image.meta["highest"]):  # NaN would be both
        return
    finite = torch.isfinite(voxels)
    wrong = int(voxels.numel() - finite.sum())
    nan = torch.isnan(voxels)
    number = int(nan.sum())
    can_be_filled = number == wrong < voxels.numel()
    if fill_nan is None or not can_be_filled:
        option = FILL_LOWEST if can_be_filled else ""
        raise InputError(f"`image` must have finite voxels, got {wrong} that are NaN or infinite.", option)
    value = float(voxels[finite].min()) if fill_nan == LOWEST else float(fill_nan)
    voxels[nan] = value
    image.meta["lowest"], image.meta["highest"] = (float(value) for value in voxels.aminmax())
    note = f"{number} voxels that were NaN ({number / voxels.numel():.0%}) were filled with {value:g}."
    image.meta[str(BagKeys.NOTES)] = [*image.meta.get(BagKeys.NOTES, []), note]


def check_hounsfield(modality: str, low: float, high: float) -> None:
    """Refuse a scan that can't be a CT in Hounsfield units, by its modality and its lowest and highest value.

    Raises:
        InputError: (a ``ValueError``) when it is another modality, or has other values.

    Example:
        >>> check_hounsfield("CT", -1024, 1800)
        >>> check_hounsfield("CT", 0, 255)
        Traceback (most recent call last):
        ...
        monai_mil_ext.utils.exceptions.InputError: `image` must have Hounsfield units, negative in air and fat, for a
        window in these units, got values 0 to 255.
    """
    if modality != "CT":
        raise InputError(f"`image` must be a CT for a window in Hounsfield units, got modality {modality}.", NORMALIZE)
    if low == high:
        raise InputError(f"`image` must have voxels that differ, got {low:g} in all of them.")
    if high - low < MIN_SPAN or low > -AIR_PART * min(high, MAX_BONE):
        raise InputError(
            "`image` must have Hounsfield units, negative in air and fat, for a window in these units, "
            f"got values {low:g} to {high:g}.",
            NORMALIZE,
        )


def _spacing(image: MetaTensor) -> list[float]:
    return [round(float(length), 4) for length in image.affine[:3, :3].norm(dim=0)]


@cache
def _load_image() -> LoadImage:
    return LoadImage(image_only=True, ensure_channel_first=True)


class LoadScand(MapTransform):
    """Dictionary form of :py:class:`LoadScan`.

    Args:
        keys: items with the path of a scan or of a mask with the geometry of a scan.
        series: see :py:class:`LoadScan`; an item ``series`` takes precedence.
        hounsfield: see :py:class:`LoadScan`.
        stack: see :py:class:`LoadScan`; an item ``stack`` takes precedence.
        irregular: see :py:class:`LoadScan`.
        fill_nan: see :py:class:`LoadScan`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = LoadScan.backend

    def __init__(
        self,
        keys: KeysCollection,
        series: str | None = None,
        hounsfield: bool = False,
        stack: str | int | None = None,
        irregular: str = "refuse",
        fill_nan: float | str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadScan(series, hounsfield, stack, irregular, fill_nan)

    @property
    def source_values(self) -> dict[str, str]:
        """Return what this transform determines of a :py:class:`monai_mil_ext.data.InstanceSource`."""
        fill_nan = self.load.fill_nan
        values = {} if fill_nan is None else {"fill_nan": fill_nan if isinstance(fill_nan, str) else f"{fill_nan:g}"}
        # other options give the same slices
        return {**values, "irregular": "resample"} if self.load.irregular == "resample" else values

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the scan of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key], d.get(BagKeys.SERIES), d.get(BagKeys.STACK))
        return d


LoadScanD = LoadScanDict = LoadScand
