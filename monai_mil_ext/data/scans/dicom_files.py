"""Headers of DICOM files, and faults of their pixel data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = [
    "HeaderError",
    "has_preamble",
    "is_directory",
    "is_enhanced",
    "num_frames",
    "number",
    "pixel_fault",
    "read_header",
    "transfer_syntax",
    "vector",
]

pydicom = optional_dependency("dicom", "pydicom")

GEOMETRY = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
ONE_VALUE = ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID", "PhotometricInterpretation")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# what tells slices of one position apart, most telling first, with a name for messages
DIMENSIONS = {
    "StackID": "stack ID",
    "TemporalPositionIndex": "temporal position",
    "TemporalPositionIdentifier": "temporal position",
    "EffectiveEchoTime": "echo time",
    "EchoNumbers": "echo",
    "EchoTime": "echo time",
    "InversionTime": "inversion time",
    "FlipAngle": "flip angle",
    "DiffusionBValue": "b value",
    "DiffusionGradientOrientation": "gradient direction",
    "DiffusionDirectionality": "directionality",
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "NominalCardiacTriggerDelayTime": "trigger delay",
    "TriggerTime": "trigger time",
    "ComplexImageComponent": "component",
    "FrameType": "frame type",
    "ImageType": "image type",
    "FrameAcquisitionNumber": "acquisition",
    "AcquisitionNumber": "acquisition",
    "KVP": "kV",
    "ConvolutionKernel": "kernel",
    "FrameReferenceDateTime": "time",
    "AcquisitionTime": "time",
}
TAGS = [
    *GEOMETRY,
    *ONE_VALUE,
    *PIXELS,
    *GROUPS,
    *DIMENSIONS,
    "BitsAllocated",
    "InstanceNumber",
    "Modality",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "RescaleIntercept",
    "RescaleSlope",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SliceThickness",
]
NO_IMAGE = {"RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SEG", "SR", "PR", "KO", "REG", "DOC", "FID", "RWV"}
DICOMDIR = "1.2.840.10008.1.3.10"


class HeaderError(ValueError):
    """Error of a DICOM header, which says in a few words what the file has or lacks."""


def read_header(path: Path) -> Any:
    """Read the tags that slices need, without the pixels; return ``None`` for a file that is not DICOM.

    Raises:
        HeaderError: when it is a DICOM file without a complete header; the message says what it has instead.
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
        raise HeaderError("damaged content") from None
    if not whole:
        raise HeaderError("an incomplete header")
    return header


def is_directory(header: Any) -> bool:
    """Return whether a header is that of a DICOMDIR."""
    return str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR


def is_enhanced(header: Any) -> bool:
    """Return whether the geometry of an object is that of its frames, in functional groups."""
    return GROUPS[1] in header


def num_frames(header: Any) -> int:
    """Return the number of frames of an object."""
    return int(number(header, "NumberOfFrames", 1))


def transfer_syntax(header: Any) -> Any:
    """Return the UID of the encoding of the pixels; a file without it is implicit or explicit, as pydicom found."""
    stated = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if stated:
        return pydicom.uid.UID(str(stated))
    implicit, little = header.original_encoding if hasattr(header, "original_encoding") else (True, True)
    explicit = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
    return pydicom.uid.ImplicitVRLittleEndian if implicit else explicit


def pixel_fault(header: Any, path: Path) -> str:
    """Compare the pixel data with their size, since ITK fills missing pixels with whatever is in memory.

    Returns:
        What is wrong, or an empty text. Only the presence of compressed pixels is checked: decoders check the rest.
    """
    if "PixelData" not in header:
        return "floating-point pixels" if any(tag in header for tag in PIXELS) else "no pixel data"
    syntax = transfer_syntax(header)
    if not syntax.is_transfer_syntax:
        return "an unknown transfer syntax"
    if (syntax.is_compressed and not syntax.is_deflated) or number(header, "SamplesPerPixel", 1) != 1:
        return ""  # color is refused in any case
    rows, columns, bits = (number(header, tag, 0) for tag in ("Rows", "Columns", "BitsAllocated"))
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


def vector(header: Any, tag: str, size: int) -> NDArray[np.float64]:
    """Return the ``size`` finite values of a tag, or raise ``HeaderError``."""
    values = header.get(tag)
    values = list(values) if isinstance(values, Sequence) or hasattr(values, "__iter__") else [values]
    if len(values) != size:
        raise HeaderError(f"{len(values)} values of {tag}")
    return np.array([_finite(value, tag) for value in values])


def number(header: Any, tag: str, default: float | None = None) -> float:
    """Return the finite value of a tag, or of ``default`` if it has none, or raise ``HeaderError``."""
    value = header.get(tag, None)
    return _finite(default if value is None or value == "" else value, tag)


def _finite(value: Any, tag: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise HeaderError(f"a {tag} that is no number") from None
    if not math.isfinite(number):
        raise HeaderError(f"a {tag} that is not finite")
    return number


def has_preamble(path: Path) -> bool:
    """Return whether a file begins like DICOM, so that pydicom is needed for no other file."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
