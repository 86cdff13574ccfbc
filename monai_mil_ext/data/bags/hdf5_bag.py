"""Reader of bags in HDF5: those of this package, TRIDENT, CLAM, STAMP, ASMIL and ACMIL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.utils.remote import RangeFile

from .bag_layout import BagLayout, CoordinateSpec, feature_key, number, positive_number, smallest_step, text
from .bag_rows import (
    UNFINISHED,
    ArrayRows,
    BagFileError,
    HDF5Rows,
    RawRows,
    Rows,
    Unreadable,
    check_array_count,
    check_header_size,
    is_numeric,
)

__all__ = ["open_hdf5", "open_remote_hdf5"]

h5py = optional_dependency("", "h5py")

STAMP_UM, STAMP_PX = 256.0, 224.0  # tile size of the versions of STAMP that wrote no unit


@contextmanager
def open_hdf5(path: Path, slide: str | None = None) -> Iterator[BagLayout]:
    """Open a bag file in HDF5.

    Args:
        path: the file.
        slide: name of the group, for a file with one group per slide.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    # h5py.File(path) takes twice as long, since it sets up what only a writer needs
    with h5py.File(h5py.h5f.open(bytes(path), h5py.h5f.ACC_RDONLY, access)) as file:
        yield _open(file, slide)


@contextmanager
def open_remote_hdf5(source: RangeFile, slide: str | None = None) -> Iterator[BagLayout]:
    """Open a bag file in HDF5 in an object store, of which only the requested ranges of bytes are fetched."""
    try:
        with h5py.File(source, "r") as file:
            yield _open(file, slide, source)
    except Exception:
        if source.error is not None:  # HDF5 reports an error of the store as one of the file
            raise source.error from None
        raise


def _open(file: Any, slide: str | None, source: RangeFile | None = None) -> BagLayout:
    group, (members, unreadable) = file, _members(file)
    slides = sorted(name for name, member in members.items() if isinstance(member, h5py.Group))
    if slides and not any(isinstance(member, h5py.Dataset) for member in members.values()):
        group = members[_choose_slide(slide, slides)]
        members, unreadable = _members(group)
    return _layout(file, group, members, unreadable, source)


def _members(group: Any) -> tuple[dict[str, Any], dict[str, Unreadable]]:
    """Return the members of a group that can be read, and the others; links to other files are refused for security."""
    file_name = h5py.h5f.get_name(group.id)
    members: dict[str, Any] = {}
    unreadable: dict[str, Unreadable] = {}
    datasets = 0
    for name in group:
        kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
        member = None if kind == h5py.h5l.TYPE_EXTERNAL else _member(group, name, kind)
        if isinstance(member, Unreadable):
            unreadable[name] = member
            continue
        if member is None or h5py.h5f.get_name(member.id) != file_name:
            raise BagFileError(f"`path` must hold its own data, got a link to another file under {name!r}")
        if isinstance(member, h5py.Dataset) and (member.shape is None or not is_numeric(member.dtype)):
            # attributes may be text, and text is not mistaken for features
            shape = member.shape if member.dtype.kind in "cf" else None
            unreadable[name] = Unreadable(str(member.dtype), shape or ())
        members[name] = member
        datasets += isinstance(member, h5py.Dataset)
        check_array_count(datasets)
    return members, unreadable


def _member(group: Any, name: str, kind: int) -> Any:
    try:
        return group[name]
    except (KeyError, RuntimeError, OSError):
        if kind == h5py.h5l.TYPE_SOFT:
            return Unreadable("a link that leads nowhere")
        raise


def _choose_slide(slide: str | None, slides: list[str]) -> str:
    if slide not in slides:
        got = f"{slide!r} among {len(slides)} slides: {', '.join(map(repr, slides[:5]))}"
        raise BagFileError(f"`slide` must name a slide of the file, got {got}{', ...' if len(slides) > 5 else ''}")
    return slide


def _layout(
    file: Any,
    group: Any,
    members: Mapping[str, Any],
    unreadable: Mapping[str, Unreadable],
    source: RangeFile | None,
) -> BagLayout:
    datasets = {n: m for n, m in members.items() if isinstance(m, h5py.Dataset) and n not in unreadable}
    arrays = {name: dataset for name, dataset in datasets.items() if dataset.ndim}
    features = feature_key({name: dataset.shape for name, dataset in arrays.items()}, unreadable)
    on_features, on_coords = (_Attributes(arrays[n].attrs if n in arrays else (), {}) for n in (features, "coords"))
    scalars = {name: dataset for name, dataset in datasets.items() if name not in arrays}
    attributes = _Attributes(group.attrs, {**_slide_facts(on_coords), **scalars})
    if features is None and "coords" not in arrays:
        raise BagFileError(f"`path` must hold features, got {sorted({*members, *attributes})}")
    format_name = "asmil" if group is not file else _format(members, attributes, on_features, on_coords)
    level = _level(arrays, attributes, features, format_name)
    columns = {
        "features" if name == features else name: _rows(file, dataset, name in (features, "coords"), level, source)
        for name, dataset in arrays.items()
        if level == "tile" or name != "coords"
    }
    metadata = (
        _stamp_metadata(attributes)
        if format_name == "stamp"
        else _metadata(format_name, attributes, on_features, on_coords)
    )
    return BagLayout(format_name, columns, attributes, level, **metadata)


class _Attributes(Mapping[str, Any]):
    """Attributes and scalar datasets, each read on access.

    A damaged heap of strings makes the HDF5 library loop forever, so only requested strings are read.
    """

    def __init__(self, attributes: Any, scalars: Mapping[str, Any]) -> None:
        self.attributes, self.scalars = attributes, scalars
        self.names = dict.fromkeys([*scalars, *attributes])  # listed once: every access to the file costs time

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        value = self.scalars[name][()] if name in self.scalars else self.attributes[name]
        if isinstance(value, h5py.Empty):
            return None
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _format(
    members: Mapping[str, Any],
    attributes: Mapping[str, Any],
    on_features: Mapping[str, Any],
    on_coords: Mapping[str, Any],
) -> str:
    if {"feats", "patch_embeddings"} & set(members) or "stamp_version" in attributes:
        return "stamp"
    if "patch_size_level0" in on_coords or "encoder" in on_features or "savetodir" in on_features:
        return "trident"
    if "patch_level" in on_coords or (set(members) == {"features", "coords"} and not attributes):
        return "clam"
    return "hdf5"


def _level(arrays: Mapping[str, Any], attributes: Mapping[str, Any], features: str | None, format_name: str) -> str:
    level = text(attributes.get("feat_type")) or "tile"
    if format_name == "trident" and features and arrays[features].ndim == 1 and len(arrays[features]):
        level = "slide"
    if level not in ("tile", "slide", "patient"):
        raise BagFileError(f"`path` must hold features of tiles, slides or patients, got feat_type {level!r}")
    return level


def _rows(file: Any, dataset: Any, drop_axis: bool, level: str, source: RangeFile | None) -> Rows:
    shape, plist = dataset.shape, dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise BagFileError("`path` must hold its own data, got a dataset stored in other files")
    if drop_axis and shape == (0,):  # TRIDENT's form of a slide without tissue
        return ArrayRows(lambda: np.empty((0, 0), dataset.dtype), (0, 0), dataset.dtype)
    if drop_axis and len(shape) == 1 and level != "tile":
        return ArrayRows(lambda: dataset[()], (1, *shape), dataset.dtype)
    leading = drop_axis and len(shape) == 3 and shape[0] == 1
    size = file.id.get_filesize()
    if not plist.get_nfilters() and dataset.nbytes > size:
        raise BagFileError(f"`path` must hold the {shape} values of its header, got {size} bytes")
    check_header_size(max(dataset.nbytes, math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize), size)
    contiguous = plist.get_layout() == h5py.h5d.CONTIGUOUS
    offset = dataset.id.get_offset() if contiguous else None
    if contiguous and offset is None and dataset.nbytes:
        raise BagFileError(UNFINISHED)
    if offset is not None:
        place = file.id.get_vfd_handle() if source is None else source
        return RawRows(place, shape[leading:], dataset.dtype, [offset])
    return HDF5Rows(dataset, leading, source)


def _metadata(
    format_name: str,
    attributes: Mapping[str, Any],
    on_features: Mapping[str, Any],
    on_coords: Mapping[str, Any],
) -> dict[str, Any]:
    """Read the metadata from the attributes of the file and its arrays, under the names that each tool uses."""
    encoder = text(attributes.get("encoder")) or text(on_features.get("encoder"))
    trident = format_name == "trident"
    unit = text(attributes.get("unit")) or ("px" if format_name in ("trident", "clam", "asmil") else None)
    size = positive_number(attributes.get("tile_size"))
    spec = CoordinateSpec(unit, _level0_tile_size(on_coords) if size is None else size)
    return {
        "encoder": encoder,
        "magnification": positive_number(on_coords.get("target_magnification", attributes.get("magnification"))),
        "mpp": positive_number(attributes.get("mpp")),
        "input_size": positive_number(attributes.get("input_size", on_coords.get("patch_size") if trident else None)),
        "coordinate_spec": spec,
        "infer_coordinates": _infer_from_steps if spec.tile_size is None and unit == "px" else None,
    }


def _slide_facts(coords: Mapping[str, Any]) -> dict[str, Any]:
    """Return size and magnification of the slide at level 0 from TRIDENT's or CLAM's attributes of the coordinates."""
    sides = [positive_number(coords.get(name)) for name in ("level0_width", "level0_height")]
    level_size = np.ravel(coords.get("level_dim", ()))  # of CLAM
    if number(coords.get("patch_level")) == 0 and level_size.size == 2:
        sides = [positive_number(side) for side in level_size]
    magnification = positive_number(coords.get("level0_magnification"))
    return {
        **({"spatial_shape": np.array(sides, dtype=np.int64)} if all(sides) else {}),
        **({} if magnification is None else {"level0_magnification": np.float64(magnification)}),
    }


def _level0_tile_size(coords: Mapping[str, Any]) -> float | None:
    """Return the tile size in pixels of level 0, or compute it from the size at a level and its downsample."""
    if "patch_size_level0" in coords:
        return positive_number(coords["patch_size_level0"])
    size, level = positive_number(coords.get("patch_size")), number(coords.get("patch_level"))
    reduction = positive_number(coords.get("downsample", 1.0 if level == 0 else None))
    custom = positive_number(coords.get("custom_downsample", 1.0))
    if size is None or reduction is None or custom is None:
        return None
    return positive_number(size * int(reduction) * custom)


def _infer_from_steps(coords: NDArray[Any]) -> CoordinateSpec:
    return CoordinateSpec("px", smallest_step(coords), estimated=True)


def _stamp_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    unit = text(attributes.get("unit"))
    size = positive_number(attributes.get("tile_size_um", attributes.get("tile_size")))
    pixels = positive_number(attributes.get("tile_size_px"))
    encoder = text(attributes.get("extractor", attributes.get("encoder")))
    if unit == "um" or (unit is None and "tile_size_um" in attributes):
        mpp = size / pixels if size and pixels else None
        return {"encoder": encoder, "coordinate_spec": CoordinateSpec("um", size), "mpp": mpp, "input_size": pixels}
    if unit is None and size is not None and round(size) == STAMP_PX:
        return {
            "encoder": encoder,
            "coordinate_spec": _early_stamp(),
            "mpp": STAMP_UM / STAMP_PX,
            "input_size": STAMP_PX,
        }
    unknown = unit or size is not None
    return {"encoder": encoder, "infer_coordinates": _refuse if unknown else _infer_early_stamp}


def _early_stamp(estimated: bool = False) -> CoordinateSpec:
    return CoordinateSpec("um", STAMP_UM, STAMP_UM / STAMP_PX, estimated)


def _infer_early_stamp(coords: NDArray[Any]) -> CoordinateSpec:
    step = smallest_step(coords)
    return _early_stamp(estimated=True) if step is not None and round(step) == STAMP_PX else _refuse(coords)


def _refuse(coords: NDArray[Any]) -> CoordinateSpec:
    raise BagFileError(
        "`path` must state the unit of its coords, got neither a unit nor tiles of 224 as in early STAMP"
    )
