"""Source of the slices of a scan: what a preprocessing does, and what a scan states of itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose, CopyItemsd, MapTransform, ScaleIntensityRanged, Transform
from torch import Tensor

from monai_mil_ext.data import InstanceSource
from monai_mil_ext.data.features.fingerprints import TRANSFORM_STATE, fingerprint
from monai_mil_ext.data.models import preprocessing_id
from monai_mil_ext.transforms.bags.check_source import CheckSourced, scan_facts
from monai_mil_ext.transforms.bags.encode_instances import EncodeInstancesd
from monai_mil_ext.utils import BagKeys

from .load_scan import LoadScand
from .slice_bag import SliceBagd

__all__ = ["scan_preprocessing", "scan_source"]

PLAIN = (bool, int, float, str)
INTENSITY = "monai.transforms.intensity"  # module of the transforms that change values


def scan_source(transform: Callable[[Any], Any], key: str = "image", encoder: str | None = None) -> InstanceSource:
    """Find out from the transforms of a preprocessing which instances it makes of a scan.

    The window is that of ``ScaleIntensityRanged``; any other transform of ``monai.transforms.intensity`` is the
    ``normalization``. Plane, size and pixels are those of :py:class:`monai_mil_ext.transforms.SliceBagd`. Another
    transform may have a mapping ``source_values`` of the same names. ``preprocessing`` is a fingerprint of every step
    before the encoder that changes ``key``, so that any other difference is noticed too.

    Args:
        transform: preprocessing of an item, often a ``Compose``.
        key: key of the scan.
        encoder: name of the encoder; ``None`` is that of its class.

    Example:
        >>> window = ScaleIntensityRanged("image", -1000, 400, 0, 1, clip=True)
        >>> source = scan_source(Compose([window, SliceBagd("image", "coronal", spatial_size=224)]))
        >>> source.window, source.plane, source.spatial_size
        ((-1000.0, 400.0), 'coronal', (224,))
    """
    steps = [step for step in _steps(transform) if _changes(step, key)]
    encoders = [step.encode.encoder for step in steps if isinstance(step, EncodeInstancesd)]
    before = [step for step in steps if not isinstance(step, EncodeInstancesd)]
    values: dict[str, Any] = {"key": key, "preprocessing": preprocessing_id(*(_of_key(step, key) for step in before))}
    for step in before:
        values.update(_step_values(step, key))
    if encoders:
        values["encoder"] = encoder or type(encoders[0]).__name__
        values["encoder_fingerprint"] = fingerprint(encoders[0])
    return InstanceSource.from_values(values)


def scan_preprocessing(
    transforms: Sequence[Callable[[Any], Any]],
    check: bool = False,
    trained: InstanceSource | None = None,
    allow_mismatch: bool = False,
    key: str = "image",
) -> Compose:
    """Compose a preprocessing that says where its instances come from, and can compare that with the training.

    Items get what the scan states of itself: ``lowest`` and ``highest`` (values before the window), ``spacing`` (lowest
    and highest distance of two slices in mm), ``window`` (text on the window or normalization, for pictures) and, of
    DICOM, ``modality``. With ``check``, options that differ from the
    training are refused before the scan is read, and its modality and values before it is encoded, with a
    :py:class:`monai_mil_ext.utils.checks.SourceMismatchError`.

    Args:
        transforms: transforms from the path of a scan to its features.
        check: whether to compare the source with ``trained``, see :py:class:`monai_mil_ext.transforms.CheckSourced`.
        trained: source of the training; ``None`` if it is unknown.
        allow_mismatch: whether to mark an item that differs instead of raising.
        key: key of the scan.

    Example:
        >>> window = ScaleIntensityRanged("image", -160, 240, 0, 1, clip=True)
        >>> preprocessing = scan_preprocessing([window], check=True, trained=InstanceSource(window=(-1000, 400)))
        >>> scan_source(preprocessing).window
        (-160.0, 240.0)
    """
    steps = list(Compose(transforms).flatten().transforms)
    encoding = next((i for i, step in enumerate(steps) if isinstance(step, EncodeInstancesd)), len(steps))
    before, after = [*steps[:encoding], _DescribeScan(key, steps[:encoding])], steps[encoding:]
    if check:
        given = scan_source(Compose(steps), key).to_values()
        compare = CheckSourced(key, trained, given, allow_mismatch=allow_mismatch)
        before = [compare, *before, compare]
    return Compose([*before, *after])


class _DescribeScan(Transform):
    """Transform that copies what a scan states of itself from its metadata to the item."""

    def __init__(self, key: str, steps: Sequence[Any] = ()) -> None:
        self.key = key
        source = scan_source(Compose([step for step in steps if not isinstance(step, CheckSourced)]), key)
        self.values = _describe_values(source)
        self.is_ct = any(isinstance(step, LoadScand) and step.load.hounsfield for step in steps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image, position = d.get(self.key), d.get(BagKeys.POSITION)
        if isinstance(image, MetaTensor):
            d.update(scan_facts(image.meta))
            d[BagKeys.CONTAINER] = str(image.meta.get(BagKeys.CONTAINER, ""))
            d[BagKeys.NOTES] = "; ".join(image.meta.get(BagKeys.NOTES, ()))
            if self.values:
                is_ct = d.get("modality", "CT" if self.is_ct else "") == "CT"
                unit = " HU" if is_ct and self.values.startswith("window") else ""
                d[str(BagKeys.WINDOW)] = self.values + unit
        if isinstance(position, Tensor) and len(position) > 1:
            distance = position.diff()
            d["spacing"] = (round(float(distance.min()), 4), round(float(distance.max()), 4))
        return d


def _describe_values(source: InstanceSource) -> str:
    """Return the window, ``"window -1000 to 400"``, or the normalization of gray values, or an empty text."""
    values = source.to_values()
    if "window" in values:
        low, high = values["window"]
        return f"window {low:g} to {high:g}"
    return f"normalization {values['normalization']}" if "normalization" in values else ""


def _steps(transform: Any) -> list[Any]:
    return list(transform.flatten().transforms) if isinstance(transform, Compose) else [transform]


def _changes(step: Any, key: str) -> bool:
    """Return whether a step may change the instances."""
    if isinstance(step, (CheckSourced, CopyItemsd, _DescribeScan)):
        return False
    return not isinstance(step, MapTransform) or key in step.keys


def _of_key(step: Any, key: str) -> Any:
    """Return what a step does to ``key``, whichever other keys it has, such as a mask."""
    if isinstance(step, LoadScand):  # which series it selects is no preprocessing
        resampled = step.load.irregular == "resample"  # other options give the same slices
        return (_name(step), {"irregular": "resample"}) if resampled else _name(step)
    if not isinstance(step, MapTransform):
        return _comparable(step)
    index, count = step.keys.index(key), len(step.keys)
    values = {name: value for name, value in vars(step).items() if name not in ("keys", "allow_missing_keys")}
    per_key = {n for n, value in values.items() if isinstance(value, (list, tuple)) and len(value) == count}
    return _name(step), {n: _comparable(value[index] if n in per_key else value) for n, value in values.items()}


def _comparable(value: Any) -> Any:
    """Return an equal value for equal numbers: a record has the window -1000.0 to 400.0 for -1000 to 400."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_comparable(part) for part in value]
    if isinstance(value, Transform):
        return _name(value), {n: _comparable(part) for n, part in vars(value).items() if n not in TRANSFORM_STATE}
    return value


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _step_values(step: Any, key: str) -> Mapping[str, Any]:
    """Return what a step determines of the source."""
    if isinstance(step, SliceBagd):
        slicer = step.slicers[step.keys.index(key)]
        return {"plane": slicer.plane, "spatial_size": slicer.spatial_size, "pixel_mm": slicer.pixel_mm}
    if isinstance(step, ScaleIntensityRanged):
        if step.scaler.a_min == step.scaler.a_max:  # MONAI leaves the values as they are
            raise ValueError(f"`a_min` and `a_max` of a window must differ, got {step.scaler.a_min} for both.")
        return {"window": (step.scaler.a_min, step.scaler.a_max)}
    stated = getattr(step, "source_values", None)
    if isinstance(stated, Mapping):
        return stated
    return {"normalization": _normalization(step)} if type(step).__module__.startswith(INTENSITY) else {}


def _normalization(step: Any) -> str:
    """Return the name of a transform and its numbers: ``ScaleIntensityRangePercentiles(lower=1, upper=99)``."""
    inner = [value for value in vars(step).values() if isinstance(value, Transform)]
    public = {n: v for part in inner for n, v in vars(part).items() if n[0] != "_" and isinstance(v, PLAIN)}
    return f"{type(step).__name__.removesuffix('d')}({', '.join(f'{n}={v}' for n, v in public.items())})"
