"""Slides of feature files, found by name, for pictures of a prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_mil_ext.data.bags.folder_layout import FEATURE_SUFFIXES, drop_links, file_name, list_files
from monai_mil_ext.utils import BagKeys, check_local, resolve_path

__all__ = ["SlideFolder", "pair_slides"]

DICOM = ".dcm"  # of files whose folder is the slide
COLUMN = "slide"  # of a table: path or name of the slide of a feature file
SOURCE, MISSING = str(BagKeys.SOURCE), str(BagKeys.PICTURES_MISSING)
NONE_FOUND = "no slide found"
OUTSIDE = "the slide of the table lies outside of `slide_dir`, which must be a folder that holds it"
Folder = str | os.PathLike[str]


class SlideFolder:
    """Slides below a folder, at any depth, found by name.

    A folder of DICOM files is one slide. Hidden files, thumbnails and the heat maps of earlier results are no slides,
    see :py:func:`monai_mil_ext.data.bags.folder_layout.list_files`; links are followed.

    Args:
        root: the folder.
        suffixes: suffixes of slides.

    Raises:
        FileNotFoundError: when there is no such folder.

    Example:
        >>> folder = Path("slides")
        >>> (folder / "batch 1").mkdir(parents=True)
        >>> (folder / "batch 1" / "s1.svs").touch()
        >>> [path.name for path in SlideFolder(folder, [".svs"]).find("s1.h5")]
        ['s1.svs']
    """

    def __init__(self, root: Folder, suffixes: Sequence[str]) -> None:
        self.root = resolve_path(root, "slide_dir")
        if not os.path.isdir(self.root):
            raise FileNotFoundError("`slide_dir` must be a folder that exists, got none.")
        self.suffixes = tuple(suffixes)

    def find(self, name: str) -> list[Path]:
        """Return the slides with the stem of a file name, whose suffix is that of a slide, of features, or absent."""
        for stem in (name, *_stems(name, (*self.suffixes, *FEATURE_SUFFIXES))):
            if stem in self._by_stem:
                return self._by_stem[stem]
        return []

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self._slides():
            for stem in _stems(path.name, self.suffixes) or [path.name]:
                found.setdefault(stem, []).append(path)
        return found

    def _slides(self) -> list[Path]:
        if self.root == self.root.parent:  # the folder of all others, which gives paths and is not searched
            return []
        files = [file for file in drop_links(list_files(self.root, self.suffixes)) if not _is_heatmap(file)]
        return sorted({file.parent if file.suffix.lower() == DICOM else file for file in files})


def _is_heatmap(file: Path) -> bool:
    return file.with_name(f"{file.stem}_map.json").exists()


def pair_slides(
    items: Sequence[Mapping[str, Any]],
    suffixes: Sequence[str],
    slide_dir: Folder | None = None,
    slide: Folder | None = None,
    root: Folder | None = None,
) -> list[dict[str, Any]]:
    """Return the items of feature files with the path of their slide as ``source``, and all others unchanged.

    A slide is ``slide``, or that of the item's ``slide``, a path relative to ``slide_dir`` or ``root`` or a name below
    the first of them that is given, or the slide below ``slide_dir`` with the stem of the feature file. An item without
    a slide, with several or with an address gets the reason as ``pictures_missing``.

    Raises:
        FileNotFoundError: when ``slide_dir`` or ``slide`` does not exist.
        ValueError: when ``slide`` is given for several items, or no feature file has a slide below ``slide_dir``.
    """
    features = [item for item in items if _is_feature_file(item)]
    if slide is not None:
        return [{**item, SOURCE: _single(slide, items, features)} for item in items]
    folder = None if slide_dir is None else SlideFolder(slide_dir, suffixes)
    bases = [] if folder is None else [folder.root]
    bases += [] if root is None else [resolve_path(root, "root")]
    by_name = SlideFolder(bases[0], suffixes) if bases and any(item.get(COLUMN) for item in features) else None
    paired = [
        _plain(item) if not _is_feature_file(item) else _with_slide(item, folder, bases, by_name) for item in items
    ]
    if folder is not None and features and all(item.get(MISSING, "") == NONE_FOUND for item in paired):
        raise ValueError(
            f"`slide_dir` must hold a slide with the name of a feature file, got none for {len(features)} of them."
        )
    return paired


def _with_slide(
    item: Mapping[str, Any], folder: SlideFolder | None, bases: Sequence[Path], by_name: SlideFolder | None
) -> dict[str, Any]:
    named = str(item.get(COLUMN, ""))
    search = by_name if named else folder
    if search is None:
        return _plain(item)
    try:
        found = _at_path(named, bases) if named else []
        found = found or search.find(file_name(named or str(item["image"])))
    except ValueError as error:  # an address
        return {**_plain(item), MISSING: str(error).removesuffix(".")}
    if len(found) == 1:
        return {**_plain(item), SOURCE: str(found[0])}
    if not found:
        return {**_plain(item), MISSING: OUTSIDE if named and _leads_out(named, bases) else NONE_FOUND}
    several = f"{len(found)} slides of this name found, of which the column `{COLUMN}` must name one"
    return {**_plain(item), MISSING: several}


def _at_path(named: str, bases: Sequence[Path]) -> list[Path]:
    """Return the slide at a path that leads out of none of the folders it may be relative to.

    Raises:
        ValueError: when it is an address, such as ``s3://bucket/x``.
    """
    check_local(slide=named)
    paths = [(base, resolve_path(base / named)) for base in bases]
    return [path for base, path in paths if path.is_relative_to(base) and os.path.exists(path)][:1]


def _leads_out(named: str, bases: Sequence[Path]) -> bool:
    return any(not resolve_path(base / named).is_relative_to(base) for base in bases)


def _single(slide: Folder, items: Sequence[Mapping[str, Any]], features: Sequence[Mapping[str, Any]]) -> str:
    if len(items) != 1 or not features:
        raise ValueError(
            f"`slide` must be given for a single feature file, got {len(items)} files, {len(features)} of them "
            "features; `slide_dir` finds the slides of several."
        )
    check_local(slide=slide)
    if not os.path.exists(slide):
        raise FileNotFoundError("`slide` must be a slide that exists, got none.")
    return str(resolve_path(slide))


def _is_feature_file(item: Mapping[str, Any]) -> bool:
    image = item.get("image")
    return isinstance(image, (str, os.PathLike)) and str(image).lower().endswith(FEATURE_SUFFIXES)


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != COLUMN}


def _stems(name: str, suffixes: Sequence[str]) -> list[str]:
    """Return a file name without one suffix and without two, such as ``a.ome`` and ``a`` of ``a.ome.tif``."""
    path = Path(name)
    if path.suffix.lower() not in suffixes:
        return []
    second = Path(path.stem).suffix.lower()
    return [path.stem, *([Path(path.stem).stem] if second in (".ome", *suffixes) else [])]
