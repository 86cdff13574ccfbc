"""Slides among DICOM files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from monai_mil_ext.utils import check_local, optional_dependency

from .slide_errors import SLIDE_CLASS, SlideFileError, is_dicom

__all__ = ["find_dicom_slides", "single_pyramid", "slide_file_of_folder"]

pydicom = optional_dependency("wsi", "pydicom")

NAMES = ("SOPClassUID", "ImageType", "SeriesInstanceUID", "PyramidUID", "TotalPixelMatrixColumns", "Columns")
HASHED = 10  # letters of the hash of a UID
OTHER_SUFFIXES = (".xml", ".json", ".txt", ".csv", ".jpg", ".png", ".svs", ".tif", ".tiff", ".h5", ".zip")


class _Level(NamedTuple):
    path: Path
    series: str
    pyramid: str
    width: int


def find_dicom_slides(folder: str | os.PathLike[str]) -> list[tuple[str, Path]]:
    """Find the whole slides among the DICOM files of a folder and its sub-folders.

    A series is a slide; its label, overview and thumbnail are not, nor is a series of another kind, such as CT. A
    series with several pyramids is a slide for each.

    Args:
        folder: the folder.

    Returns:
        For each slide an ID, ``slide_`` and a hash of its UID, and the path of its largest level, which
        :py:class:`SlideFile` opens; sorted by path.
    """
    check_local(folder=folder)
    best: dict[tuple[str, str], _Level] = {}
    for level in filter(None, map(_level, _files(Path(folder)))):
        uid = level.series, level.pyramid
        if uid not in best or level.width > best[uid].width:
            best[uid] = level
    several = Counter(series for series, _ in best)
    slides = [(_slide_id("".join(uid) if several[uid[0]] > 1 else uid[0]), best[uid].path) for uid in best]
    return sorted(slides, key=lambda slide: slide[1])


def slide_file_of_folder(folder: Path) -> Path:
    """Return the file of the only DICOM slide of a folder.

    Raises:
        SlideFileError: when there is none, or more than one.
    """
    slides = find_dicom_slides(folder)
    if len(slides) != 1:
        found = f"one with {len(slides)}: give a file or a folder of one of them" if slides else "one without"
        raise SlideFileError(f"`slide` must be a file, or a folder with one slide in DICOM, got {found}.")
    return slides[0][1]


@contextmanager
def single_pyramid(path: Path) -> Iterator[Path]:
    """Yield a path of the file in a folder without the other pyramids of its series, whose levels OpenSlide mixes."""
    chosen = _level(path)
    files = sorted(path.parent.iterdir()) if chosen and chosen.pyramid else []
    siblings = [_level(file) for file in files if _is_candidate(file)]
    levels = [level for level in siblings if level and chosen and level.series == chosen.series]
    if chosen is None or len({level.pyramid for level in levels}) < 2:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for k, level in enumerate(levels):
            if level.pyramid == chosen.pyramid:
                (Path(folder) / f"{k}.dcm").symlink_to(level.path.absolute())
        first = next(k for k, level in enumerate(levels) if level.pyramid == chosen.pyramid)
        yield Path(folder) / f"{first}.dcm"


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if _is_candidate(path):
                yield path


def _is_candidate(path: Path) -> bool:
    return path.suffix.lower() not in OTHER_SUFFIXES and path.is_file() and is_dicom(path)


def _level(path: Path) -> _Level | None:
    """Return what the header of a level of a slide states; None for any other file."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(NAMES))
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, AttributeError, NotImplementedError):
        return None
    if header.get("SOPClassUID") != SLIDE_CLASS or "VOLUME" not in (header.get("ImageType") or ()):
        return None
    width = int(header.get("TotalPixelMatrixColumns") or header.get("Columns") or 0)
    return _Level(path, str(header.get("SeriesInstanceUID", "")), str(header.get("PyramidUID", "")), width)


def _slide_id(uid: str) -> str:
    return f"slide_{hashlib.sha256(uid.encode()).hexdigest()[:HASHED]}"
