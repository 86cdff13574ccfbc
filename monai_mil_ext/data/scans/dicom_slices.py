"""Slices of DICOM objects: the image of a single-frame object, or the frames of an enhanced one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .dicom_files import (
    DIMENSIONS,
    GEOMETRY,
    GROUPS,
    ONE_VALUE,
    HeaderError,
    is_enhanced,
    num_frames,
    number,
    pixel_fault,
    vector,
)

__all__ = ["SeriesSlice", "read_slices"]

SCOUTS = ("LOCALIZER", "SCOUT")
QUANTITATIVE = ("CT", "PT")  # their values have a unit, whichever of them are shown bright
TRANSFORMATION = "PixelValueTransformationSequence"
FRAME_GEOMETRY = {
    "PixelSpacing": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
}


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
    frame: int | None = None  # index in a multi-frame object
    instance_number: int = 0  # of a frame, its number in the object
    rescale: tuple[float, float] = (1.0, 0.0)  # slope, intercept
    uid: str = ""  # SOPInstanceUID
    scout: bool = False
    dimensions: Mapping[str, str] = {}  # what tells it from others of its position, see ``DIMENSIONS``


def read_slices(path: Path, header: Any) -> list[SeriesSlice]:
    """Return the slices of an object, each with its fault.

    Args:
        path: the file.
        header: its header, see :py:func:`monai_mil_ext.data.scans.dicom_files.read_header`.

    Raises:
        HeaderError: when it has no geometry, or not that of each frame; the message says what it lacks.
    """
    if is_enhanced(header):
        try:
            return _frames(path, header)
        except (HeaderError, ImportError):
            raise
        except Exception:  # as in ``read_header``: damaged items of sequences are converted here
            raise HeaderError("damaged functional groups") from None
    if num_frames(header) > 1:
        raise HeaderError("several frames without positions (no functional groups)")
    missing = [tag for tag in GEOMETRY if header.get(tag, None) is None]
    if missing:
        raise HeaderError(f"no {missing[0]}")
    geometry = [vector(header, tag, size) for tag, size in zip(GEOMETRY[2:], (2, 3, 6), strict=True)]
    rescale = number(header, "RescaleSlope", 1), number(header, "RescaleIntercept", 0)
    fault = "a ModalityLUTSequence in place of a slope" if header.get("ModalityLUTSequence", None) else ""
    item = _slice(path, header, geometry, number(header, "SliceThickness", 0), rescale)
    return [
        item._replace(
            fault=item.fault or fault or pixel_fault(header, path),
            instance_number=_whole(header.get("InstanceNumber", None)),
            scout=_is_scout(header.get("ImageType", None)),
            dimensions={tag: text for tag in DIMENSIONS if (text := _text(header.get(tag, None)))},
        )
    ]


def _slice(
    path: Path,
    header: Any,
    geometry: Sequence[NDArray[np.float64]],
    thickness: float,
    rescale: tuple[float, float],
) -> SeriesSlice:
    """Return a slice with the values that all frames of its object share."""
    samples = number(header, "SamplesPerPixel", 1)
    size = (int(number(header, "Rows")), int(number(header, "Columns")), int(samples))
    spacing, position, orientation = geometry
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
        fault=_value_fault(spacing, thickness, rescale[0]) or _photometric_fault(header, size[2]),
        rescale=rescale,
        uid=str(header.get("SOPInstanceUID", None) or ""),
    )


def _value_fault(spacing: NDArray[np.float64], thickness: float, slope: float) -> str:
    if not (spacing > 0).all():
        return f"a PixelSpacing of {' x '.join(format(mm, 'g') for mm in spacing)} mm"
    if thickness < 0:
        return f"a SliceThickness of {thickness:g} mm"
    return "" if slope else "a RescaleSlope of 0"


def _photometric_fault(header: Any, samples: int) -> str:
    """Return why values of one sample can't be used as they are; color is refused in any case.

    The rescaled values of a CT are Hounsfield units, so MONOCHROME1 only says how a viewer shows them. Of other
    modalities it may also mean that stored values were inverted, which no header tells.
    """
    kind = str(header.get("PhotometricInterpretation", None) or "MONOCHROME2").strip().upper()
    if kind == "MONOCHROME1" and header.get("Modality", None) not in QUANTITATIVE:
        return "MONOCHROME1 pixels, which may be inverted"
    known = kind in ("MONOCHROME1", "MONOCHROME2") or samples != 1
    return "" if known else "a color palette" if kind == "PALETTE COLOR" else "an unknown photometric interpretation"


def _frames(path: Path, header: Any) -> list[SeriesSlice]:
    shared: Any = next(iter(header.get(GROUPS[0], None) or ()), {})
    groups = list(header.get(GROUPS[1], None) or ())
    count = num_frames(header)
    if len(groups) != count:
        raise HeaderError(f"{count} frames and functional groups of {len(groups)}")
    missing = [tag for tag in GEOMETRY[:2] if header.get(tag, None) is None]
    if missing:
        raise HeaderError(f"no {missing[0]}")
    rescaled = [TRANSFORMATION in group or TRANSFORMATION in shared for group in groups]
    if len(set(rescaled)) > 1:
        raise HeaderError("a RescaleSlope of some frames only")
    fault = pixel_fault(header, path)
    common = {tag: text for tag in DIMENSIONS if (text := _text(header.get(tag, None)))}
    common.update(_dimensions(shared))
    slices = []
    for k, group in enumerate(groups):
        measures = _macro("PixelMeasuresSequence", group, shared)
        transformation = _macro(TRANSFORMATION, group, shared) if rescaled[k] else header
        item = _slice(
            path,
            header,
            [_frame_vector(tag, size, group, shared) for tag, size in zip(GEOMETRY[2:], (2, 3, 6), strict=True)],
            number(measures, "SliceThickness", 0),
            (number(transformation, "RescaleSlope", 1), number(transformation, "RescaleIntercept", 0)),
        )
        dimensions = {**common, **_dimensions(group)}
        kind = dimensions.get("FrameType") or dimensions.get("ImageType", "")
        slices.append(
            item._replace(
                fault=item.fault or fault,
                frame=k,
                instance_number=k + 1 if count > 1 else _whole(header.get("InstanceNumber", None)),
                scout=_is_scout(kind.split("\\")),
                dimensions=dimensions,
            )
        )
    return slices


def _macro(name: str, *groups: Any) -> Any:
    """Return the item of a sequence of a frame, or else of that which all frames share."""
    return next((group.get(name)[0] for group in groups if group.get(name, None)), {})


def _frame_vector(tag: str, size: int, *groups: Any) -> NDArray[np.float64]:
    item = _macro(FRAME_GEOMETRY[tag], *groups)
    if item.get(tag, None) is None:
        raise HeaderError(f"no {tag} of some frames")
    return vector(item, tag, size)


def _dimensions(group: Any) -> dict[str, str]:
    """Return what the sequences of a functional group, or those in them, state of the dimensions."""
    items = list(_items(group))
    items += [inner for item in items for inner in _items(item)]
    return {tag: text for item in items for tag in DIMENSIONS if tag in item and (text := _text(item.get(tag)))}


def _items(dataset: Any) -> Iterator[Any]:
    return (item for tag in list(dataset.keys()) if dataset[tag].VR == "SQ" for item in dataset[tag].value[:1])


def _text(value: Any) -> str:
    if value is None or isinstance(value, (str, int, float)):
        return "" if value is None else str(value).strip()
    return "\\".join(map(str, value)) if hasattr(value, "__iter__") else str(value)


def _is_scout(image_type: Any) -> bool:
    values = [image_type] if isinstance(image_type, str) else image_type or ()
    return any(str(value).strip().upper() in SCOUTS for value in values)


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
