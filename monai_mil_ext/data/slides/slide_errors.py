"""Error of a file that is not a readable slide, and what such a file is instead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_mil_ext.utils import InputError, optional_dependency

__all__ = ["CONVERT", "SlideFileError", "is_dicom", "reading_errors"]

pydicom = optional_dependency("wsi", "pydicom")

CONVERT = "vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg --Q 90"
WITH_PARTS = (".mrxs", ".vms", ".vmu")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes, also of BigTIFF
PREAMBLE = 132  # bytes of a DICOM file up to its first element
SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage


class SlideFileError(InputError):
    """Error of a file that is not a readable slide, or lacks what is needed to cut it into tiles."""


@contextmanager
def reading_errors(path: Path, rule: str = "") -> Iterator[None]:
    """Replace any error of a library by a :py:class:`SlideFileError` without the path.

    Args:
        path: path of the slide.
        rule: what ``slide`` must be or do; by default, be a slide, and the file is described.
    """
    try:
        yield
    except ImportError:
        raise ImportError("Reading slides needs more: pip install monai-mil-ext[wsi].") from None
    except MemoryError:
        raise
    except InputError as error:
        error.add_facts("" if rule else _container(path))
        raise
    except Exception as error:  # not chained, since its message may contain the path
        kind = type(error).__name__
        text = f"`slide` must {rule}, got {kind}." if rule else _unreadable(path, kind)
        raise SlideFileError(text, container="" if rule else _container(path)) from None


def is_dicom(path: Path) -> bool:
    """Return whether the file has DICOM's preamble."""
    with path.open("rb") as file:
        return file.read(PREAMBLE)[-4:] == b"DICM"


def _container(path: Path) -> str:
    """Return the kind of a file that is not a readable slide, by its first bytes or its suffix."""
    with path.open("rb") as file:
        begin = file.read(PREAMBLE)
    if begin[:4] in TIFF:
        return "TIFF"
    return "DICOM" if begin[-4:] == b"DICM" else f"{path.suffix[1:].upper()} file".strip()


def _unreadable(path: Path, kind: str) -> str:
    suffix = path.suffix.lower()
    what = f"{kind} for a {suffix or 'nameless'} file"
    if os.path.getsize(path) == 0:
        what = "an empty file"
    elif suffix == ".mrxs" and not path.with_suffix("").is_dir():
        what = "a .mrxs file without the folder of the same name, which holds its pixels"
    elif is_dicom(path):
        what = _describe_dicom(path)
    elif kind == "OpenSlideUnsupportedFormatError":
        what = f"a {suffix} file of an unknown format" + (" or without its parts" if suffix in WITH_PARTS else "")
    return f"`slide` must be a slide that can be read, got {what}."


def _describe_dicom(path: Path) -> str:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality"])
        syntax = header.file_meta.TransferSyntaxUID.name
    except Exception:  # of whatever kind
        return "a damaged DICOM file"
    if header.get("SOPClassUID") != SLIDE_CLASS:
        return f"a DICOM file that is no slide (modality {header.get('Modality') or 'unknown'})"
    return f"a DICOM slide without its levels, or in a form that OpenSlide does not read ({syntax})"
