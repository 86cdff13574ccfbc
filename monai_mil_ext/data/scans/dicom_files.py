"""Headers of the DICOM files of a folder, sorted into slices, other objects and faults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = [
    "DicomFolder",
    "SeriesSlice",
    "has_preamble",
    "is_directory",
    "num_frames",
    "pixel_fault",
    "read_dicom_folder",
    "read_header",
]

pydicom = optional_dependency("dicom", "pydicom")

GEOMETRY = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
ONE_VALUE = ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID", "PhotometricInterpretation")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TAGS = [
    *GEOMETRY,
    *ONE_VALUE,
    *PIXELS,
    "BitsAllocated",
    "Modality",
    "NumberOfFrames",
    "RescaleIntercept",
    "RescaleSlope",
    "SOPClassUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SliceThickness",
]
NO_IMAGE = {"RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SEG", "SR", "PR", "KO", "REG", "DOC", "FID", "RWV"}
DICOMDIR = "1.2.840.10008.1.3.10"
ENDINGS = (".dcm", ".dicom", ".ima")
NO_HEADER = "no header"


class SeriesSlice(NamedTuple):
    """Geometry and series of an image slice, from its header."""

    path: Path
    series: tuple[str, str, str]  # UID, modality, number
    size: tuple[int, int, int]  # rows, columns, samples per pixel
    spacing: NDArray[np.float64]  # (2,) mm
    position: NDArray[np.float64]  # (3,) mm, LPS
    orientation: NDArray[np.float64]  # (6,) directions of a row and a column
    thickness: float | None
    description: str = ""
    frame_of_reference: str = ""
    constants: tuple[str, ...] = ()  # what a series has one value of, see ``ONE_VALUE``
    fault: str = ""


class DicomFolder(NamedTuple):
    """Content of a folder."""

    slices: list[SeriesSlice]
    faults: list[tuple[str, str]]  # UID of the series, empty if unknown, and what is wrong with a file that is no slice
    others: Counter[str]  # objects that are no slices, by kind

    @property
    def rest(self) -> str:
        """Text on everything that is no slice."""
        return ", ".join(f"{n} {kind}" for kind, n in sorted(self.others.items())) or "no DICOM object"


def read_dicom_folder(folder: Path) -> DicomFolder:
    """Read the headers of all files of a folder, without hidden files and sub-folders, or of a single file."""
    content = DicomFolder([], [], Counter())
    blank: list[str] = []
    files = folder.iterdir() if folder.is_dir() else [folder]
    for path in sorted(p for p in files if p.is_file() and not p.name.startswith(".")):
        try:
            header = read_header(path)
        except ValueError as error:
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


def read_header(path: Path) -> Any:
    """Read the tags that slices need, without the pixels; return ``None`` for a file that is not DICOM.

    Raises:
        ValueError: when it is a DICOM file without a complete header; the message says what it has instead.
    """
    with path.open("rb") as file:
        begin = file.read(132)
    # some files lack the preamble and begin with a tag of group 2 or 8
    if begin[128:] != b"DICM" and begin[:2] not in (b"\x02\x00", b"\x08\x00"):
        return None
    try:
        header = pydicom.dcmread(path, specific_tags=TAGS, defer_size=1024, force=True)
        # the values are converted here, since that may raise as well
        values = {tag: header.get(tag) for tag in TAGS if tag not in PIXELS}
        list(header.file_meta)
        num_frames(header)
        whole = values["SeriesInstanceUID"] or is_directory(header)
    except ImportError:
        raise
    except Exception:
        # whatever else pydicom raises is caused by the file: EOFError, struct.error, zlib.error, ...
        raise ValueError("damaged content") from None
    if not whole:
        raise ValueError("an incomplete header")
    return header


def is_directory(header: Any) -> bool:
    """Return whether a header is that of a DICOMDIR."""
    return str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR


def num_frames(header: Any) -> int:
    """Return the number of frames of an object."""
    return int(_number(header, "NumberOfFrames", 1))


def _sort(content: DicomFolder, path: Path, header: Any) -> None:
    """Add a file to the slices, or to the faults and other objects."""
    uid, modality = str(header.get("SeriesInstanceUID", "")), str(header.get("Modality", None) or "unknown")
    if is_directory(header):
        content.others["DICOMDIR (not followed)"] += 1
    elif modality in NO_IMAGE:
        content.others[f"of modality {modality}"] += 1
    elif num_frames(header) > 1:
        content.others[f"of modality {modality} with several frames"] += 1
    else:
        try:
            content.slices.append(_slice(path, header))
        except ValueError as error:
            content.others[f"of modality {modality} with {error}"] += 1
            if not _is_cut(header):
                content.faults.append((uid, str(error)))
            else:  # even the UID of its series may be cut
                content.faults.append(("", "an incomplete header"))


def _is_cut(header: Any) -> bool:
    """Return whether an image has no pixels, unlike raw data, waveforms and the like, which are no images."""
    storage = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    return "Image Storage" in pydicom.uid.UID(str(storage)).name and not any(tag in header for tag in PIXELS)


def _slice(path: Path, header: Any) -> SeriesSlice:
    """Return a slice with its fault; raise ``ValueError`` if it has no geometry."""
    missing = [tag for tag in GEOMETRY if header.get(tag, None) is None]
    if missing:
        raise ValueError(f"no {missing[0]}")
    spacing, position, orientation = (
        _vector(header, tag, size) for tag, size in zip(GEOMETRY[2:], (2, 3, 6), strict=True)
    )
    samples, thickness = _number(header, "SamplesPerPixel", 1), _number(header, "SliceThickness", 0)
    size = (int(_number(header, "Rows")), int(_number(header, "Columns")), int(samples))
    return SeriesSlice(
        path=path,
        series=(
            str(header.get("SeriesInstanceUID", "")),
            str(header.get("Modality", "")),
            str(header.get("SeriesNumber", None)),
        ),
        size=size,
        spacing=spacing,
        position=position,
        orientation=orientation,
        thickness=thickness or None,
        description=str(header.get("SeriesDescription", None) or ""),
        frame_of_reference=str(header.get("FrameOfReferenceUID", None) or ""),
        constants=tuple(str(header.get(tag, None) or "") for tag in ("Modality", *ONE_VALUE)),
        fault=_value_fault(header, spacing, thickness) or pixel_fault(header, path),
    )


def _value_fault(header: Any, spacing: NDArray[np.float64], thickness: float) -> str:
    if not (spacing > 0).all():
        return f"a PixelSpacing of {' x '.join(format(mm, 'g') for mm in spacing)} mm"
    if thickness < 0:
        return f"a SliceThickness of {thickness:g} mm"
    slope, _ = _number(header, "RescaleSlope", 1), _number(header, "RescaleIntercept", 0)
    return "" if slope else "a RescaleSlope of 0"


def pixel_fault(header: Any, path: Path) -> str:
    """Compare the pixel data with their size, since ITK fills missing pixels with whatever is in memory.

    Returns:
        What is wrong, or an empty text. Only the presence of compressed pixels is checked: decoders check the rest.
    """
    if "PixelData" not in header:
        return "floating-point pixels" if any(tag in header for tag in PIXELS) else "no pixel data"
    syntax = pydicom.uid.UID(str(header.file_meta.get("TransferSyntaxUID") or pydicom.uid.ImplicitVRLittleEndian))
    if not syntax.is_transfer_syntax:
        return "an unknown transfer syntax"
    if (syntax.is_compressed and not syntax.is_deflated) or _number(header, "SamplesPerPixel", 1) != 1:
        return ""  # color is refused in any case
    rows, columns, bits = (_number(header, tag, 0) for tag in ("Rows", "Columns", "BitsAllocated"))
    pixels, frames = _raw_pixels(header), num_frames(header)
    length = pixels.length
    needed = math.ceil(frames * rows * columns * bits / 8)
    if length not in (needed, needed + needed % 2) or not needed:
        size = f"{frames} x {rows:g} x {columns:g}" if frames > 1 else f"{rows:g} x {columns:g}"
        return f"{length} bytes of pixels where {size} of {bits:g} bits have {needed}"
    if not syntax.is_deflated and pixels.value_tell + length > path.stat().st_size:
        return "pixels that are cut"
    return ""


def _raw_pixels(header: Any) -> Any:
    """Return the element of the pixels without their values, which only pydicom 2, as in MONAI Label, reads for it."""
    options = {"keep_deferred": True} if int(pydicom.__version__.split(".")[0]) > 2 else {}
    return header.get_item(0x7FE00010, **options)


def _vector(header: Any, tag: str, size: int) -> NDArray[np.float64]:
    values = header.get(tag)
    values = list(values) if isinstance(values, Sequence) or hasattr(values, "__iter__") else [values]
    if len(values) != size:
        raise ValueError(f"{len(values)} values of {tag}")
    return np.array([_finite(value, tag) for value in values])


def _number(header: Any, tag: str, default: float | None = None) -> float:
    value = header.get(tag, None)
    return _finite(default if value is None or value == "" else value, tag)


def _finite(value: Any, tag: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"a {tag} that is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"a {tag} that is not finite")
    return number


def has_preamble(path: Path) -> bool:
    """Return whether a file begins like DICOM, so that pydicom is needed for no other file."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _is_blank(path: Path) -> bool:
    """Return whether a file is empty or begins with zeros only, as one does that was not copied to its end."""
    with path.open("rb") as file:
        return not file.read(132).strip(b"\0")


def _ending(path: Path) -> str:
    """Return the suffix in small letters; numbers, in which UIDs end, are all alike."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix
