"""List of the scans in a folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai_mil_ext.data.scans.dicom_files import has_preamble, is_directory, read_header
from monai_mil_ext.utils import BagKeys, resolve_path
from monai_mil_ext.utils.bag_items import case_id_of

__all__ = ["scans_of_folder"]

CASE, SERIES = str(BagKeys.CASE_ID), str(BagKeys.SERIES)
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")
DICOM = (".dcm", ".dicom", ".ima")


def scans_of_folder(folder: Path) -> list[dict[str, Any]]:
    """Return an item with ``case_id`` and ``image`` for each scan that lies directly in a folder.

    A scan is a file of a volume (NIfTI, NRRD, MetaImage, a zip archive of one scan); a sub-folder, whose DICOM files
    are one series; or the DICOM files of one series that lie in the folder itself, with their ``series`` unless it is
    one file. Hidden files and files of other kinds are left out. The case ID is the name without suffix, or with it if
    two have the same; one with characters other than letters, digits, ``.``, ``_`` and ``-`` becomes ``scan_`` and a
    hash of it.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: when there is no scan in it.

    Example:
        >>> folder = Path("scans")
        >>> folder.mkdir()
        >>> for name in ("b.nii.gz", "a.nrrd", "notes.txt"):
        ...     (folder / name).touch()
        >>> (folder / "c").mkdir()
        >>> [item["case_id"] for item in scans_of_folder(folder)]
        ['a', 'b', 'c']
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found: list[tuple[Path, str | None]] = [(path, None) for path in paths if path.is_dir() or _suffix(path) in VOLUMES]
    groups = _series(path for path in paths if path.is_file() and _suffix(path) not in VOLUMES)
    found += [(group[0], None if len(group) == 1 else uid) for uid, group in groups.items() if uid]
    if not found:
        raise FileNotFoundError("`path` must be a folder with scans, got one without.")
    if groups.get(""):
        logging.getLogger(__name__).info("%d files of the folder are no scans and are left out.", len(groups[""]))
    stems = Counter(_stem(path) for path, _ in found)
    return [
        {
            CASE: case_id_of(_stem(path) if stems[_stem(path)] == 1 else path.name, "scan"),
            "image": str(resolve_path(path if series is None else folder)),
            **({} if series is None else {SERIES: series}),
        }
        for path, series in sorted(found, key=lambda scan: scan[0].name)
    ]


def _suffix(path: Path) -> str:
    """Return the ending of a file name by which its kind is known."""
    name = path.name.lower()
    return next((ending for ending in VOLUMES if name.endswith(ending)), path.suffix.lower())


def _series(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Return files by the UID of their DICOM series, and those that are no part of a scan by an empty one."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_series_uid(path), []).append(path)
    return groups


def _series_uid(path: Path) -> str:
    """Return the series of a DICOM file, its own name if the header is damaged, and nothing for a file that is none."""
    is_named = path.suffix.lower() in DICOM
    with suppress(ValueError, OSError):
        if not is_named and not has_preamble(path):
            return ""
        header = read_header(path)
        if header is not None and is_directory(header):
            return ""
        return path.name if header is None else str(header.get("SeriesInstanceUID", "") or path.name)
    return path.name


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.name[: len(path.name) - len(_suffix(path))]
