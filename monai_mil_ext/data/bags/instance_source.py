"""Source of the instances of a bag: the encoder and preprocessing that made them, as far as they are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from .bag_file import open_bag

__all__ = ["InstanceSource", "SourceDifference"]

TOLERANCE = 0.02  # relative, of resolutions and tile sizes: values that differ by rounding
NOMINAL_TOLERANCE = 0.15  # relative, of an mpp against a nominal magnification: scanners differ
OR = " or "  # between the names of several encoders of one cohort
NOMINAL_MPP = 10.0  # mpp times magnification of a nominal objective: 0.5 mpp is 20x
HIGHER_MINIMUM = 0.2  # part of the trained value range by which the lowest value may be higher than in training
LOWER_MAXIMUM = 0.5  # part by which the highest value may be lower
SPACING_FACTOR = 2.0  # by which slices may be closer or further apart than any in training


class SourceDifference(NamedTuple):
    """Result of the comparison of two sources.

    Attributes:
        trained: descriptions of the values of training that differ, such as ``"encoder uni_v1"``.
        got: descriptions of the values in their place.
        unknown: names of what training knows and the other source does not state, so that nothing was checked.
    """

    trained: tuple[str, ...] = ()
    got: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.trained)

    def message(self) -> str:
        """Return the sentence ``"trained on encoder uni_v1 at 0.5 mpp, got encoder gigapath at 1 mpp"``."""
        by_hash = any(text.startswith("tissue detection") for text in self.trained)
        hint = ": give --tissue and --min_tissue of the training" if by_hash else ""
        return f"trained on {_phrase(self.trained)}, got {_phrase(self.got)}{hint}"


@dataclass(frozen=True)
class InstanceSource:
    """Source of instances: encoder, resolution and preprocessing; ``None`` and ``()`` stand for unknown.

    Values that may differ between the bags of one cohort, such as ``mpp``, are tuples of all values seen.

    Args:
        key: key of the instances in an item.
        encoder: name of the encoder.
        encoder_fingerprint: fingerprint of the encoder, weights included.
        width: number of features of an instance.
        dtype: data type of the features in their files; features of other types are accepted.
        mpp: micrometers per pixel of the encoder's input, of tiles.
        magnification: nominal magnification of the encoder's input, of tiles.
        tile_size: edge of a tile in pixels of the encoder's input.
        plane: plane of slices: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        window: lowest and highest value of the window of slices, in the unit of the scan (HU for CT).
        normalization: name of a normalization in the place of a window.
        spatial_size: size of a slice in pixels of the encoder's input.
        pixel_mm: size in mm of a pixel of slices that were resampled to it.
        fill_nan: what voxels that are NaN are replaced by: a number, or ``"lowest"``.
        irregular: ``"resample"`` if slices of irregular series are put onto a regular grid.
        modality: DICOM modalities of the scans.
        spacing: lowest and highest distance of two slices in mm; those of a scan agree unless all are more than
            twice as far apart as any in training, or less than half as far.
        lowest: range of the lowest value of the scans, before the window.
        highest: range of the highest value of the scans, before the window.
        preprocessing: fingerprint of the preprocessing, see :py:func:`monai_mil_ext.data.preprocessing_id`.

    Example:
        >>> trained = InstanceSource(encoder="uni_v1", mpp=(0.5,))
        >>> trained.compare(InstanceSource(encoder="gigapath", magnification=(5.0,))).message()
        'trained on encoder uni_v1 at 0.5 mpp, got encoder gigapath at 5x'
        >>> trained.compare(InstanceSource(encoder="uni_v1")).unknown
        ('mpp',)
    """

    key: str = "image"
    encoder: str | None = None
    encoder_fingerprint: str | None = None
    width: int | None = None
    dtype: str | None = None
    mpp: tuple[float, ...] = ()
    magnification: tuple[float, ...] = ()
    tile_size: tuple[float, ...] = ()
    plane: str | None = None
    window: tuple[float, ...] = ()
    normalization: str | None = None
    spatial_size: tuple[int, ...] = ()
    pixel_mm: tuple[float, ...] = ()
    fill_nan: str | None = None
    irregular: str | None = None
    modality: tuple[str, ...] = ()
    spacing: tuple[float, ...] = ()
    lowest: tuple[float, ...] = ()
    highest: tuple[float, ...] = ()
    preprocessing: str | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> InstanceSource:
        """Make a source from JSON values, attributes of a file or an item; other keys are ignored."""
        known = {field.name: field for field in fields(cls)}
        plain = {name: _plain(values[name]) for name in known.keys() & {str(k) for k in values}}
        return cls(**{name: _as_field(known[name].type, value) for name, value in plain.items() if value is not None})

    @classmethod
    def from_bag(cls, path: str | os.PathLike[str], key: str = "image", slide: str | None = None) -> InstanceSource:
        """Read the source that a bag file states, without its features.

        Args:
            path: bag file in any format of :py:func:`monai_mil_ext.data.open_bag`.
            key: key of the instances in an item.
            slide: name of the bag in a file with several.
        """
        with open_bag(path, slide) as bag:
            info, attributes = bag.info(), bag.attributes
        stated = cls.from_values(
            {k: v for k, v in attributes.items() if k not in ("key", "mpp", "tile_size") and _fits(k, v)}
        )
        return replace(
            stated,
            key=key,
            encoder=info.encoder,
            width=info.in_features,
            dtype=None if info.dtype is None else str(info.dtype).removeprefix("torch."),
            mpp=_tuple(info.mpp),
            magnification=_tuple(info.magnification),
            tile_size=_tuple(info.input_size),
        )

    @classmethod
    def from_items(cls, items: Iterable[Mapping[str, Any]], key: str = "image") -> InstanceSource:
        """Combine the sources that the bag files of a cohort state, see :py:meth:`merge`.

        Args:
            items: items with a bag file, or several of a patient; in an item with features nothing is stated.
            key: key of the files.
        """
        values = (v for item in items for v in (item[key] if isinstance(item[key], (list, tuple)) else [item[key]]))
        return cls.merge(cls.from_bag(v, key) if isinstance(v, (str, os.PathLike)) else cls(key) for v in values)

    @classmethod
    def merge(cls, sources: Iterable[InstanceSource]) -> InstanceSource:
        """Combine the sources of the bags of a cohort.

        A cohort of several encoders, which :py:func:`monai_mil_ext.data.check_cohort` refuses, has the names of all.

        Raises:
            ValueError: when bags differ in something that can't be mixed, such as the plane; both values are named.
        """
        merged: InstanceSource | None = None
        for source in sources:
            merged = source if merged is None else _merged(merged, source)
        if merged is None:
            raise ValueError("`sources` must not be empty, got none.")
        return merged

    def to_values(self) -> dict[str, Any]:
        """Return the known values, for JSON."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {name: value for name, value in values.items() if value not in (None, [])}

    def to_attributes(self) -> dict[str, Any]:
        """Return the known values that a bag file states in its attributes, see :py:meth:`from_bag`."""
        return {name: value for name, value in self.to_values().items() if name != "key"}

    def compare(self, other: InstanceSource) -> SourceDifference:
        """Compare the source of training with that of a bag; what the training does not know is not compared."""
        trained: list[str] = []
        got: list[str] = []
        unknown: list[str] = []
        for name, (describe, agree) in _COMPARED.items():
            a, b = getattr(self, name), getattr(other, name)
            unscaled = (
                name == "pixel_mm" and self.plane and other.plane
            )  # slices that state no pixels are not resampled
            if a in (None, ()) and not (unscaled and b):
                continue
            if b in (None, ()) and not unscaled:
                unknown += [] if name == "width" else [name]  # the shape of the features is checked when they are read
            elif not agree(self, a, b) and not (trained and name in _EXPLAINED):
                trained.append(describe(a))
                got.append(describe(b))
        difference = SourceDifference(tuple(trained), tuple(got), tuple(unknown))
        return _with_scaling(self, other, _with_nominal(self, other, difference))


def _fits(name: str, value: Any) -> bool:
    """Return whether an attribute has the type of a field; another tool may use its name for something else."""
    try:
        InstanceSource.from_values({name: value})
    except (TypeError, ValueError):
        return False
    return True


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _as_field(kind: Any, value: Any) -> Any:
    if not str(kind).startswith("tuple"):
        return value if str(kind).startswith("int") else str(value)
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    convert: Callable[[Any], Any] = {"s": str, "i": int}.get(str(kind).removeprefix("tuple[")[0], float)
    return tuple(convert(v) for v in values)


def _tuple(value: float | None) -> tuple[float, ...]:
    return () if value is None else (float(value),)


def _merged(a: InstanceSource, b: InstanceSource) -> InstanceSource:
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(a)):
        x, y = getattr(a, name), getattr(b, name)
        if name in _RANGES:
            both = x + y
            values[name] = (min(both), max(both)) if both else ()
        elif name in _SETS:
            values[name] = x + tuple(v for v in y if not any(_near(v, w) for w in x))
        elif x in (None, ()) or y in (None, ()) or x == y:
            values[name] = y if x in (None, ()) else x
        elif name == "dtype":
            values[name] = None
        elif name in _JOINED:
            values[name] = OR.join(sorted({*x.split(OR), *y.split(OR)}))
        else:
            raise ValueError(f"`sources` must have one {name.replace('_', ' ')}, got {x!r} and {y!r}.")
    return replace(a, **values)


def _near(a: Any, b: Any, tolerance: float = TOLERANCE) -> bool:
    return a == b if isinstance(a, str) else abs(a - b) <= tolerance * abs(b)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _list(values: Iterable[Any], unit: str = "") -> str:
    return " or ".join(f"{v if isinstance(v, str) else _number(v)}{unit}" for v in values)


def _equal(_: InstanceSource, a: Any, b: Any) -> bool:
    return bool(a == b) or (isinstance(a, str) and isinstance(b, str) and set(b.split(OR)) <= set(a.split(OR)))


def _all_seen(_: InstanceSource, a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return all(any(_near(value, seen) for seen in a) for value in b)


def _same_pixels(_: InstanceSource, a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and all(map(_near, b, a))


def _values_fit(trained: InstanceSource, name: str, b: tuple[float, ...]) -> bool:
    """Return whether values are not as far from those of training as another unit or modality makes them.

    A normalization makes the instances independent of the unit, which differs between the scanners of MR.
    """
    if trained.normalization or not trained.lowest or not trained.highest:
        return True
    width = max(trained.highest) - min(trained.lowest)
    if name == "lowest":
        return max(b) - max(trained.lowest) <= HIGHER_MINIMUM * width
    return min(trained.highest) - min(b) <= LOWER_MAXIMUM * width


def _spacing_fits(_: InstanceSource, a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Return whether some slices are about as far apart as some in training; others may have a gap between them."""
    return min(b) <= SPACING_FACTOR * max(a) and max(b) >= min(a) / SPACING_FACTOR


def _range(values: tuple[float, ...], unit: str) -> str:
    low, high = _number(min(values)), _number(max(values))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _same_preprocessing(_: InstanceSource, a: str, b: str) -> bool:
    """Return whether fingerprints agree; those of other versions of the packages can't be compared."""
    one, other = a.partition("@"), b.partition("@")
    return one[2] != other[2] or one[0] == other[0]


def _describe_preprocessing(value: str) -> str:
    """Describe a fingerprint, which may be preceded by what it is of, as in ``"tissue detection 1a2b3c"``."""
    name = value.partition("@")[0]
    return name if " " in name else f"preprocessing {name}"


def _with_nominal(trained: InstanceSource, other: InstanceSource, difference: SourceDifference) -> SourceDifference:
    """Compare an mpp with a nominal magnification where the two sources state one each."""
    if trained.mpp and not other.mpp and other.magnification:
        mine, other_mpp = trained.mpp, [NOMINAL_MPP / m for m in other.magnification]
        texts = _list(trained.mpp, " mpp"), _list(other.magnification, "x")
    elif trained.magnification and not other.magnification and other.mpp:
        mine, other_mpp = tuple(NOMINAL_MPP / m for m in trained.magnification), list(other.mpp)
        texts = _list(trained.magnification, "x"), _list(other.mpp, " mpp")
    else:
        return difference
    unknown = tuple(name for name in difference.unknown if name not in ("mpp", "magnification"))
    if all(any(_near(v, m, NOMINAL_TOLERANCE) for m in mine) for v in other_mpp):
        return difference._replace(unknown=unknown)
    return SourceDifference((*difference.trained, texts[0]), (*difference.got, texts[1]), unknown)


def _phrase(descriptions: Sequence[str]) -> str:
    """Join descriptions: ``"encoder uni_v1 at 0.5 mpp and slices of 8 px"``."""
    text = descriptions[0]
    for part in descriptions[1:]:
        text += f" at {part}" if part[0].isdigit() and part.endswith(("mpp", "x")) else f" and {part}"
    return text


def _with_scaling(trained: InstanceSource, other: InstanceSource, difference: SourceDifference) -> SourceDifference:
    """Compare a window with the normalization that another preprocessing has in its place."""
    for name, instead in (("window", "normalization"), ("normalization", "window")):
        a, b = getattr(trained, name), getattr(other, instead)
        if a and b and not getattr(other, name) and not getattr(trained, instead):
            unknown = tuple(entry for entry in difference.unknown if entry != name)
            texts = _COMPARED[name][0](a), _COMPARED[instead][0](b)
            pairs = zip(difference.trained, difference.got, strict=True)
            kept = [pair for pair in pairs if pair[0].split()[0] not in _EXPLAINED]
            return SourceDifference((*(p[0] for p in kept), texts[0]), (*(p[1] for p in kept), texts[1]), unknown)
    return difference


_EXPLAINED = ("encoder_fingerprint", "preprocessing")  # fingerprints that differ if anything before them does
_RANGES = ("lowest", "highest", "spacing")
_JOINED = ("encoder", "encoder_fingerprint")
_SETS = ("mpp", "magnification", "tile_size", "modality")
_Agree = Callable[[InstanceSource, Any, Any], bool]
_COMPARED: dict[str, tuple[Callable[[Any], str], _Agree]] = {
    "encoder": ("encoder {}".format, _equal),
    "encoder_fingerprint": (lambda v: f"encoder with fingerprint {v[:12]}", _equal),
    "width": ("{} features".format, _equal),
    "mpp": (lambda v: _list(v, " mpp"), _all_seen),
    "magnification": (lambda v: _list(v, "x"), _all_seen),
    "tile_size": (lambda v: f"tiles of {_list(v)} px", _all_seen),
    "modality": (lambda v: f"modality {_list(v)}", _all_seen),
    "plane": ("plane {}".format, _equal),
    "window": (lambda v: f"window {_number(v[0])} to {_number(v[-1])}", _equal),
    "normalization": ("normalization {}".format, _equal),
    "spatial_size": (lambda v: f"slices of {' x '.join(map(str, v))} px", _equal),
    "spacing": (lambda v: f"slices {_range(v, ' mm')} apart", _spacing_fits),
    "pixel_mm": (lambda v: f"pixels of {_list(v, ' mm') or 'their own size'}", _same_pixels),
    "fill_nan": ("NaN filled with {}".format, _equal),
    "irregular": ("irregular {}".format, _equal),
    "lowest": (lambda v: f"values from {_number(min(v))}", lambda s, a, b: _values_fit(s, "lowest", b)),
    "highest": (lambda v: f"values up to {_number(max(v))}", lambda s, a, b: _values_fit(s, "highest", b)),
    "preprocessing": (_describe_preprocessing, _same_preprocessing),
}
