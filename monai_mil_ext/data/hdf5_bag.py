"""Bags in HDF5: our own, and those of TRIDENT, CLAM, STAMP, ASMIL and ACMIL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from numpy.typing import NDArray

from .bag_layout import BagLayout, Place, feature_key, smallest_step, text
from .bag_rows import UNFINISHED, ArrayRows, BagFileError, HDF5Rows, RawRows, Rows, check_claim, is_numeric

__all__ = ["open_hdf5"]

h5py, _ = optional_import("h5py")

STAMP_UM, STAMP_PX = 256.0, 224.0  # the tile of STAMP before it wrote units


@contextmanager
def open_hdf5(path: Path, slide: str | None = None) -> Iterator[BagLayout]:
    """Open a bag in HDF5.

    Args:
        path: the file.
        slide: which group, where a file holds a group for each slide.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    # half of the time that opening by name takes: it sets up what only a writer needs
    with h5py.File(h5py.h5f.open(bytes(path), h5py.h5f.ACC_RDONLY, access)) as file:
        group, members = file, _members(file)
        slides = sorted(name for name, member in members.items() if isinstance(member, h5py.Group))
        if slides and not any(isinstance(member, h5py.Dataset) for member in members.values()):
            group = members[_chosen(slide, slides)]
            members = _members(group)
        yield _layout(file, group, members, path)


def _members(group: Any) -> dict[str, Any]:
    """What a group holds, none of it in another file: opening one must not lead to a path that the file names."""
    own, members = h5py.h5f.get_name(group.id), {}
    for name in group:
        outside = group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_EXTERNAL
        member = None if outside else group[name]
        if member is None or h5py.h5f.get_name(member.id) != own:
            raise BagFileError(f"`path` must hold its own data, got a link to another file under {name!r}")
        members[name] = member
    return members


def _chosen(slide: str | None, slides: list[str]) -> str:
    if slide not in slides:
        got = f"{slide!r} among {len(slides)} slides: {', '.join(map(repr, slides[:5]))}"
        raise BagFileError(f"`slide` must name a slide of the file, got {got}{', ...' if len(slides) > 5 else ''}")
    return slide


def _layout(file: Any, group: Any, members: Mapping[str, Any], path: Path) -> BagLayout:
    datasets = {n: m for n, m in members.items() if isinstance(m, h5py.Dataset) and is_numeric(m.dtype)}
    arrays = {name: dataset for name, dataset in datasets.items() if dataset.ndim}
    features = feature_key({name: dataset.shape for name, dataset in arrays.items()})
    on_features, on_coords = (_Attributes(arrays[n].attrs if n in arrays else (), {}) for n in (features, "coords"))
    scalars = {name: dataset for name, dataset in datasets.items() if name not in arrays}
    attributes = _Attributes(group.attrs, {**_slide_shape(on_coords), **scalars})
    if features is None and "coords" not in arrays:
        raise BagFileError(f"`path` must hold features, got {sorted({*members, *attributes})}")
    found = "asmil" if group is not file else _format(members, attributes, on_features, on_coords)
    level = _level(arrays, attributes, features, found)
    columns = {
        "features" if name == features else name: _rows(file, dataset, name in (features, "coords"), level)
        for name, dataset in arrays.items()
        if level == "tile" or name != "coords"
    }
    told = _stamp(attributes) if found == "stamp" else _told(found, attributes, on_features, on_coords, path)
    return BagLayout(found, columns, attributes, level, **told)


class _Attributes(Mapping[str, Any]):
    """Attributes and datasets of one value, each read when it is asked for.

    A damaged heap of strings lets the HDF5 library go round for ever, so no string is read that nobody wants.
    """

    def __init__(self, attributes: Any, scalars: Mapping[str, Any]) -> None:
        self.attributes, self.scalars = attributes, scalars
        self.names = dict.fromkeys([*scalars, *attributes])  # asked once: every look into the file costs

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        value = self.scalars[name][()] if name in self.scalars else self.attributes[name]
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


def _level(arrays: Mapping[str, Any], attributes: Mapping[str, Any], features: str | None, found: str) -> str:
    level = text(attributes.get("feat_type")) or "tile"
    if found == "trident" and features and arrays[features].ndim == 1 and len(arrays[features]):
        level = "slide"
    if level not in ("tile", "slide", "patient"):
        raise BagFileError(f"`path` must hold features of tiles, slides or patients, got feat_type {level!r}")
    return level


def _rows(file: Any, dataset: Any, squeezed: bool, level: str) -> Rows:
    shape, plist = dataset.shape, dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise BagFileError("`path` must hold its own data, got a dataset that stands in other files")
    if squeezed and shape == (0,):  # how TRIDENT writes a slide without tissue
        return ArrayRows(lambda: np.empty((0, 0), dataset.dtype), (0, 0), dataset.dtype)
    if squeezed and len(shape) == 1 and level != "tile":
        return ArrayRows(lambda: dataset[()], (1, *shape), dataset.dtype)
    leading = squeezed and len(shape) == 3 and shape[0] == 1
    size = file.id.get_filesize()
    if not plist.get_nfilters() and dataset.nbytes > size:
        raise BagFileError(f"`path` must hold the {shape} values of its header, got {size} bytes")
    check_claim(max(dataset.nbytes, math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize), size)
    contiguous = plist.get_layout() == h5py.h5d.CONTIGUOUS
    offset = dataset.id.get_offset() if contiguous else None
    if contiguous and offset is None and dataset.nbytes:
        raise BagFileError(UNFINISHED)
    if offset is not None:
        return RawRows(file.id.get_vfd_handle(), shape[leading:], dataset.dtype, [offset])
    return HDF5Rows(dataset, leading)


def _told(
    found: str,
    attributes: Mapping[str, Any],
    on_features: Mapping[str, Any],
    on_coords: Mapping[str, Any],
    path: Path,
) -> dict[str, Any]:
    """What the attributes of the file and of its arrays tell in the words of each tool."""
    encoder = text(attributes.get("encoder")) or text(on_features.get("encoder"))
    if found == "trident" and encoder is None and path.parent.name.startswith("features_"):
        encoder = path.parent.name.removeprefix("features_")
    unit = text(attributes.get("unit")) or ("px" if found in ("trident", "clam", "asmil") else None)
    size = _number(attributes.get("tile_size"))
    place = Place(unit, _level0_edge(on_coords) if size is None else size)
    magnification = _number(on_coords.get("target_magnification", attributes.get("magnification")))
    locate = _estimate if place.tile_size is None and unit == "px" else None
    mpp = _number(attributes.get("mpp"))
    return {"encoder": encoder, "magnification": magnification, "mpp": mpp, "place": place, "locate": locate}


def _slide_shape(coords: Mapping[str, Any]) -> dict[str, Any]:
    """Width and height of the slide, as TRIDENT tells them beside the coordinates."""
    sides = [_number(coords.get(name)) for name in ("level0_width", "level0_height")]
    return {"spatial_shape": np.array(sides, dtype=np.int64)} if all(sides) else {}


def _level0_edge(coords: Mapping[str, Any]) -> float | None:
    """Edge of a tile in pixels of level 0: said outright, or its size at a level times the reduction of that level."""
    if "patch_size_level0" in coords:
        return _number(coords["patch_size_level0"])
    size, level = _number(coords.get("patch_size")), _number(coords.get("patch_level"))
    reduction = _number(coords.get("downsample", 1.0 if level == 0 else None))
    custom = _number(coords.get("custom_downsample", 1.0))
    return None if size is None or reduction is None or custom is None else size * int(reduction) * custom


def _estimate(coords: NDArray[Any]) -> Place:
    return Place("px", smallest_step(coords), estimated=True)


def _stamp(attributes: Mapping[str, Any]) -> dict[str, Any]:
    unit, size = text(attributes.get("unit")), _number(attributes.get("tile_size_um", attributes.get("tile_size")))
    pixels = _number(attributes.get("tile_size_px"))
    told: dict[str, Any] = {"encoder": text(attributes.get("extractor", attributes.get("encoder")))}
    if unit == "um" or (unit is None and "tile_size_um" in attributes):
        return {**told, "place": Place("um", size), "mpp": size / pixels if size and pixels else None}
    if unit is None and size is not None and round(size) == STAMP_PX:
        return {**told, "place": _historic(), "mpp": STAMP_UM / STAMP_PX}
    return {**told, "locate": _refused if unit or size is not None else _historic_by_stride}


def _historic(estimated: bool = False) -> Place:
    return Place("um", STAMP_UM, STAMP_UM / STAMP_PX, estimated)


def _historic_by_stride(coords: NDArray[Any]) -> Place:
    step = smallest_step(coords)
    return _historic(estimated=True) if step is not None and round(step) == STAMP_PX else _refused(coords)


def _refused(coords: NDArray[Any]) -> Place:
    raise BagFileError("`path` must tell the unit of its coords, got neither one nor the tiles of 224 of early STAMP")


def _number(value: Any) -> float | None:
    """A number of an attribute; of a pair, such as a reduction in x and y, the first."""
    try:
        number = float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else (0.0 if number == 0 else None)
