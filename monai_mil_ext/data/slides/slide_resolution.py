"""Resolution and magnification that slides state in the ways of different scanners and converters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from .slide_errors import SlideFileError

__all__ = ["NOMINAL", "aperio_value", "ome_image", "ome_pixel_size", "square_mpp", "tag_pixel_size"]

NOMINAL = 10.0  # micrometers per pixel at a magnification of 1, so that 20 is 0.5
COARSEST = 20.0  # um per pixel; a coarser stated resolution is that of a printer, not of a scanner
UNEQUAL = 0.01  # largest relative difference of the two sides of a pixel
# micrometers of a unit, by its names in OME-XML, ImageJ and TIFF
MICROMETERS = {
    "µm": 1.0,  # the micro sign
    "μm": 1.0,  # the Greek letter
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
}


def square_mpp(sides: Sequence[float] | None) -> float | None:
    """Return the side of a pixel, or None if it is unknown or that of a printer.

    Raises:
        SlideFileError: when the pixels are not square.
    """
    if sides is None or not all(0 < side <= COARSEST for side in sides):
        return None
    if max(sides) > (1 + UNEQUAL) * min(sides):
        raise SlideFileError(
            f"`slide` must have square pixels, got {' x '.join(f'{side:.4g}' for side in sides)} micrometers "
            "(if this is wrong, give `slide_mpp`).",
            option="--slide_mpp MPP",
            spacing=sides,
        )
    return sum(sides) / len(sides)


def aperio_value(description: str, name: str) -> float | None:
    """Return a number, such as ``MPP`` or ``AppMag``, of a description as Aperio writes it.

    Example:
        >>> aperio_value("Aperio Image Library v12 |AppMag = 20|MPP = 0.4990", "MPP")
        0.499
    """
    match = re.search(rf"\b{name}\s*=\s*([0-9.]+)", description)
    return _number(match.group(1)) if match else None


def tag_pixel_size(page: Any, unit: str = "") -> tuple[float, float] | None:
    """Return the sides of a pixel in micrometers by the tags of a TIFF page; None without a unit.

    Args:
        page: page of ``tifffile``.
        unit: unit by the metadata of ImageJ, which has none in the tags.
    """
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    if tags[2] is not None:
        unit = getattr(tags[2].value, "name", "").lower() if tags[2].value != 1 else unit
    size = MICROMETERS.get(unit)
    if size is None or any(tag is None or not all(tag.value) for tag in tags[:2]):
        return None
    (x_pixels, x_units), (y_pixels, y_units) = (tag.value for tag in tags[:2])
    return size * x_units / x_pixels, size * y_units / y_pixels


def ome_image(xml: str, index: int, size: tuple[int, int]) -> Any:
    """Return the ``Pixels`` of an image in OME-XML: that of ``index``, if its size is (width, height), or the first."""
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 # expat limits the expansion of entities
    except ElementTree.ParseError:
        return None
    pixels = [element for element in root.iter() if _tag(element) == "Pixels"]
    fitting = [p for p in pixels if (p.get("SizeX"), p.get("SizeY")) == tuple(map(str, size))]
    if index < len(pixels) and pixels[index] in fitting:
        return pixels[index]
    return fitting[0] if fitting else None


def ome_pixel_size(pixels: Any) -> tuple[float, float] | None:
    """Return the sides of a pixel in micrometers that ``Pixels`` of OME-XML state; None without them or their unit."""
    sides = []
    for axis in "XY":
        side = _number(pixels.get(f"PhysicalSize{axis}") or "")
        unit = MICROMETERS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if not side or unit is None:
            return None
        sides.append(side * unit)
    return sides[0], sides[1]


def ome_channels(pixels: Any) -> list[Any]:
    """Return the elements ``Channel`` of ``Pixels`` of OME-XML."""
    return [element for element in pixels if _tag(element) == "Channel"]


def _tag(element: Any) -> str:
    return str(element.tag).rsplit("}", 1)[-1]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
