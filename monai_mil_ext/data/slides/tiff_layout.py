"""Choice of the pages of a TIFF file that are the slide: its image, its levels and its channels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .slide_errors import CONVERT, SlideFileError
from .slide_resolution import ome_channels, ome_image

__all__ = ["TiffLayout", "find_layout", "is_turned"]

KINDS = {"qpi": "Akoya QPTIFF", "svs": "Aperio SVS", "scn": "Leica SCN", "ndpi": "Hamamatsu NDPI"}
KINDS |= {"bif": "Ventana BIF", "philips": "Philips TIFF", "imagej": "ImageJ TIFF"}
BESIDE = ("label", "macro", "thumbnail", "overview")  # names of images beside the slide
COLORS = ("red", "green", "blue")
COLOR_VALUES = (0xFF0000FF, 0x00FF00FF, 0x0000FFFF)  # RGBA of pure colors in OME-XML
FLUORESCENT = ("EmissionWavelength", "ExcitationWavelength", "Fluor")  # attributes of a channel in OME-XML
JPEG = (6, 7)  # compressions whose colors are converted from YCbCr
DEPTHS = ("uint8", "uint16")
SMALL = 2.0  # pixels; rounding of the sides of a level


class TiffLayout(NamedTuple):
    """Pages of a slide in a TIFF file."""

    container: str
    levels: list[list[Any]]  # for each level its page in RGB, or its pages of red, green and blue
    sizes: list[tuple[int, int]]  # (width, height) of each level
    bits: int  # significant bits of a channel
    ome: Any  # element Pixels of the OME-XML, or None
    notes: list[str]


def find_layout(file: Any) -> TiffLayout:
    """Find the slide in an open ``TiffFile``.

    The slide is the largest image. Its levels are those that the format defines, or SubIFDs and reduced pages of the
    same shape.

    Raises:
        SlideFileError: when it is not in RGB of 8 or 16 bits, such as fluorescence with a page for each channel.
    """
    images = [s for s in file.series if s.keyframe.imagewidth and not str(s.name).lower().startswith(BESIDE)]
    if not file.series:
        raise SlideFileError("`slide` must have an image, got a TIFF file without one.")
    if not images:
        raise SlideFileError("`slide` must have an image, got a file with a label or an overview only.")
    slide = max(images, key=lambda image: _area(image.keyframe))
    container = "OME-TIFF" if file.is_ome else KINDS.get(slide.kind, "generic TIFF")
    ome = ome_image(file.ome_metadata, file.series.index(slide), _size(slide.keyframe)) if file.is_ome else None
    try:
        _check_pixels(slide, ome)
    except SlideFileError as error:
        error.add_facts(container, _size(slide.keyframe))
        raise
    order, notes = _channels(slide, ome)
    levels = [*slide.levels, *_reduced(slide, images)]
    known = {id(level) for level in levels[1:]}
    scenes = [image for image in images if id(image) not in known]
    if len(scenes) > 1:  # by size, since a name may be that of a patient
        sizes = ", ".join("{} x {}".format(*_size(image.keyframe)) for image in scenes)
        notes.append(f"The file has {len(scenes)} images ({sizes}), of which the largest was read.")
    pages = [[level.pages[k] for k in order] for level in levels]
    return TiffLayout(container, pages, [_size(level.keyframe) for level in levels], _bits(slide, ome), ome, notes)


def is_turned(page: Any) -> bool:
    """Return whether a page is to be turned or flipped for display."""
    return _orientation(page) != 1


def _check_pixels(slide: Any, ome: Any) -> None:
    """Refuse what is no image in RGB."""
    page = slide.keyframe
    if page.is_reduced and not page.is_subifd:
        raise SlideFileError("`slide` must have an image, got a file with a label or an overview only.")
    if is_turned(page):
        raise SlideFileError(f"`slide` must have the orientation 1, got {_orientation(page)} (turn it: vips autorot).")
    if str(slide.dtype) not in DEPTHS:
        raise SlideFileError(f"`slide` must have 8 or 16 bits per channel, got {slide.dtype}.")
    if slide.axes in ("YXS", "SYX"):
        _check_colors(page)
    else:
        _check_channels(slide, ome)


def _check_colors(page: Any) -> None:
    photometric = getattr(page.photometric, "name", "unknown colors")
    converted = photometric == "RGB" or (photometric == "YCBCR" and int(page.compression) in JPEG)
    if page.samplesperpixel not in (3, 4) or not converted:
        raise SlideFileError(
            f"`slide` must have colors in RGB, got {page.samplesperpixel} samples of {photometric} "
            f"(convert it: {CONVERT})."
        )


def _check_channels(slide: Any, ome: Any) -> None:
    """Refuse a stack or a series of images, and channels that are apart and not red, green and blue."""
    counts = {axis: count for axis, count in zip(slide.axes, slide.shape, strict=True) if axis not in "YXS"}
    if ome is not None and ome.get("SizeC") == str(counts.get("I")) and ome.get("SizeZ") == ome.get("SizeT") == "1":
        counts["C"] = counts.pop("I")  # XML without TiffData, as users of libvips write it
    channels = counts.pop("C", 1)
    if counts:
        count = next(iter(counts.values()))
        raise SlideFileError(f"`slide` must have one plane, got {count} images of the same size, as of a stack.")
    if channels != len(COLORS) or len(slide.pages) != channels or ome is None or _is_fluorescent(ome):
        what = "1 channel in gray" if channels == 1 else f"{channels} channels apart, as of fluorescence"
        raise SlideFileError(f"`slide` must be a brightfield image in RGB, got {what}.")


def _is_fluorescent(ome: Any) -> bool:
    """Return whether the channels of OME-XML have wavelengths, or names other than those of colors or numbers."""
    channels = [] if ome is None else ome_channels(ome)
    if any(name in channel.attrib for channel in channels for name in FLUORESCENT):
        return True
    names = _names(channels)
    return any(names) and _color_order(names) is None


def _bits(slide: Any, ome: Any) -> int:
    stated = "" if ome is None else ome.get("SignificantBits", "")
    return int(stated) if stated.isdigit() else int(slide.dtype.itemsize * 8)


def _channels(slide: Any, ome: Any) -> tuple[Sequence[int], list[str]]:
    """Return the pages of red, green and blue, or that of all colors, and notes on them."""
    if slide.axes in ("YXS", "SYX"):
        return [0], []
    channels = [] if ome is None else ome_channels(ome)
    order = _color_order(_names(channels)) or _color_order([_color(channel) for channel in channels])
    if order is not None:
        return order, []
    return range(len(COLORS)), ["The three channels, which have no names, were read as red, green and blue."]


def _names(channels: Sequence[Any]) -> list[str]:
    """Return the names of channels; empty for one that merely counts, such as ``Channel 1`` or ``Channel:0:2``."""
    names = [channel.get("Name", "").strip().lower() for channel in channels]
    return ["" if re.fullmatch(r"(channel|c|ch)?[\s:_-]*\d[\d:]*", name) else name for name in names]


def _color(channel: Any) -> str:
    try:
        value = int(channel.get("Color", "")) & 0xFFFFFFFF
    except ValueError:
        return ""
    return COLORS[COLOR_VALUES.index(value)] if value in COLOR_VALUES else ""


def _color_order(names: Sequence[str]) -> list[int] | None:
    """Return the indices of red, green and blue; None if the names are others."""
    for colors in (list(COLORS), [color[0] for color in COLORS]):
        if sorted(names) == sorted(colors):
            return [names.index(color) for color in colors]
    return None


def _reduced(slide: Any, images: Sequence[Any]) -> list[Any]:
    """Return further images that are levels of the slide, the largest first."""
    if slide.kind not in ("generic", "uniform", "shaped") or len(slide.pages) != 1:
        return []
    known = {id(level) for level in slide.levels}
    levels = [image for image in images if id(image) not in known and _is_level(image, slide)]
    return sorted(levels, key=lambda level: -_area(level.keyframe))


def _is_level(image: Any, slide: Any) -> bool:
    page, whole = image.keyframe, slide.keyframe
    factor = max(whole.imagewidth / page.imagewidth, whole.imagelength / page.imagelength)
    differences = [whole.imagewidth / factor - page.imagewidth, whole.imagelength / factor - page.imagelength]
    same = image.axes == slide.axes and image.dtype == slide.dtype and page.photometric == whole.photometric
    return same and (page.is_reduced or page.is_subifd) and max(map(abs, differences)) < SMALL


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return 1 if tag is None else int(tag.value)


def _size(page: Any) -> tuple[int, int]:
    return int(page.imagewidth), int(page.imagelength)


def _area(page: Any) -> int:
    return int(page.imagewidth) * int(page.imagelength)
