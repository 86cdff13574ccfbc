"""Files of a folder, sorted into slices of DICOM series, other objects and faults."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.utils import InputError, optional_dependency

from .dicom_files import NO_IMAGE, PIXELS, HeaderError, is_directory, read_header
from .dicom_slices import SeriesSlice, read_slices

__all__ = ["DicomFolder", "read_dicom_folder", "scan_files"]

pydicom = optional_dependency("dicom", "pydicom")

MAX_DEPTH = 8  # of sub-folders
MAX_FILES = 100_000
ENDINGS = (".dcm", ".dicom", ".ima")
NO_HEADER = "no header"
DIRECTORY = "DICOMDIR"


class DicomFolder(NamedTuple):
    """Content of a folder."""

    slices: list[SeriesSlice]
    faults: list[tuple[str, str]]  # UID of the series, empty if unknown, and what is wrong with a file that is no slice
    others: Counter[str]  # objects that are no slices, by kind

    @property
    def rest(self) -> str:
        """Text on everything that is no slice."""
        return ", ".join(f"{n} {kind}" for kind, n in sorted(self.others.items())) or "no DICOM object"


def scan_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its sub-folders, sorted, or a single file.

    Hidden files and folders are left out. Links to folders are not followed, nor are links to files that lead from a
    sub-folder out of the folder.

    Raises:
        InputError: when there are more than 100,000 files, or sub-folders nest more than 8 deep.
    """
    if not folder.is_dir():
        yield folder
        return
    root, count = Path(os.path.realpath(folder)), 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        depth = len(Path(place).relative_to(folder).parts)
        if depth >= MAX_DEPTH and any(not (Path(place) / name).is_symlink() for name in folders):
            raise InputError(f"`image` must be a folder with at most {MAX_DEPTH} levels of sub-folders, got more.")
        for path in (Path(place) / name for name in sorted(names) if not name.startswith(".")):
            if not path.is_file() or (depth and not Path(os.path.realpath(path)).is_relative_to(root)):
                continue
            count += 1
            if count > MAX_FILES:
                raise InputError(f"`image` must be a folder with at most {MAX_FILES} files, got more.")
            yield path


def read_dicom_folder(folder: Path) -> DicomFolder:
    """Read the headers of all files of a folder and its sub-folders, see :py:func:`scan_files`, or of a single file."""
    content = DicomFolder([], [], Counter())
    blank: list[str] = []
    for path in scan_files(folder):
        try:
            header = read_header(path)
        except HeaderError as error:
            content.faults.append(("", str(error)))
            continue
        if header is None:
            if path.suffix.lower() in ENDINGS:
                content.faults.append(("", NO_HEADER))
            elif _is_blank(path):
                blank.append(_ending(path))
        else:
            _sort(content, path, header)
    endings = {_ending(item.path) for item in content.slices}
    content.faults.extend(("", NO_HEADER) for ending in blank if ending in endings)
    return content


def _sort(content: DicomFolder, path: Path, header: Any) -> None:
    """Add a file to the slices, or to the faults and other objects."""
    uid, modality = str(header.get("SeriesInstanceUID", "")), str(header.get("Modality", None) or "unknown")
    if is_directory(header):
        content.others[DIRECTORY] += 1
    elif modality in NO_IMAGE:
        content.others[f"of modality {modality}"] += 1
    else:
        try:
            content.slices.extend(read_slices(path, header))
        except HeaderError as error:
            content.others[f"of modality {modality} with {error}"] += 1
            kind = _storage(header)
            if "Image Storage" in kind and not any(tag in header for tag in PIXELS):
                content.faults.append(("", "an incomplete header"))  # even the UID of its series may be cut
            elif not kind or ("Image Storage" in kind and "Secondary Capture" not in kind):
                content.faults.append((uid, str(error)))


def _storage(header: Any) -> str:
    """Return the name of the kind of an object, or an empty text.

    Raw data, waveforms and the like are no images, and secondary captures, such as a dose report, no slices.
    """
    uid = pydicom.uid.UID(str(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")))
    return "" if uid.name == str(uid) else str(uid.name)


def _is_blank(path: Path) -> bool:
    """Return whether a file is empty or begins with zeros only, as one does that was not copied to its end."""
    with path.open("rb") as file:
        return not file.read(132).strip(b"\0")


def _ending(path: Path) -> str:
    """Return the suffix in small letters; numbers, in which UIDs end, are all alike."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix
