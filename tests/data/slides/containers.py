"""The same slide in the containers of scanners and converters, written without loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.data.slides.dicom_slide import write_dicom
from tests.make_slide import centimeters, levels_of

__all__ = ["CONTAINERS", "CORNERS", "SIDE", "marked", "write_ome", "write_scn"]

Array = np.ndarray[Any, Any]
SIDE = 128  # pixels, side of a marked corner
CORNERS = {
    "top left": (200, 30, 40),
    "top right": (30, 140, 60),
    "bottom left": (40, 60, 190),
    "bottom right": (220, 200, 40),
}
TILED: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="u">
<collection sizeX="{plane[0]}" sizeY="{plane[1]}">
<image uuid="1"><creationDate>2020-01-01T00:00:00</creationDate><device model="Leica SCN400"/>
<pixels sizeX="{size[0]}" sizeY="{size[1]}">{levels}</pixels>
<view sizeX="{view[0]}" sizeY="{view[1]}" offsetX="{offset[0]}" offsetY="{offset[1]}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>{power}</objective></objectiveSettings>
<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
</image></collection></scn>"""
QPI = """<?xml version="1.0" encoding="utf-8"?>
<PerkinElmer-QPI-ImageDescription><DescriptionVersion>2</DescriptionVersion><ImageType>{kind}</ImageType>
<Objective>20x</Objective></PerkinElmer-QPI-ImageDescription>"""

OME_PLANES = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="3" SizeT="1" SizeX="{width}" SizeY="{height}" SizeZ="1"
 Type="uint8" PhysicalSizeX="{mpp}" PhysicalSizeY="{mpp}"></Pixels></Image></OME>"""


def marked(image: Array, side: int = SIDE) -> Array:
    """Return a copy of ``image`` with a square of another color in each corner: red, green, blue and yellow."""
    image = image.copy()
    places = [
        (row, column) for row in (slice(side), slice(-side, None)) for column in (slice(side), slice(-side, None))
    ]
    for (row, column), color in zip(places, CORNERS.values(), strict=True):
        image[row, column] = color
    return image


def write_scn(
    path: Path,
    image: Array,
    mpp: float = 0.5,
    plane: tuple[int, int] = (10_000, 8_000),
    offset: tuple[int, int] = (6_000, 4_000),
    levels: int = 2,
    power: int = 20,
) -> Path:
    """Write a Leica SCN, whose scanned region lies at ``offset`` (x, y) in a larger, empty ``plane`` of pixels."""
    images = levels_of(image, levels)
    nanometers = round(mpp * 1000)
    height, width = image.shape[:2]
    xml = SCN.format(
        plane=[side * nanometers for side in plane],
        size=(width, height),
        view=(width * nanometers, height * nanometers),
        offset=[start * nanometers for start in offset],
        levels="".join(
            f'<dimension r="{k}" ifd="{k}" sizeX="{level.shape[1]}" sizeY="{level.shape[0]}"/>'
            for k, level in enumerate(images)
        ),
        power=power,
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for k, level in enumerate(images):
            about = {"description": xml} if k == 0 else {"subfiletype": 1}
            file.write(level, **about, **TILED, **centimeters(mpp, 2**k))
    return path


def write_aperio(path: Path, image: Array, mpp: float = 0.5) -> Path:
    """Write an SVS with a thumbnail, a label and a macro image, as Aperio orders them."""
    height, width = image.shape[:2]
    about = f"Aperio Image Library v12.0.15\r\n{width}x{height} (256x256) RAW/RGB |AppMag = 20|MPP = {mpp:.4f}"
    images = levels_of(image)
    small = np.ascontiguousarray(images[-1][::2, ::2])
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "rowsperstrip": 16}
    with tifffile.TiffWriter(path) as file:
        file.write(image, description=about, **TILED)
        file.write(small, description=about, **options)
        for level in images[1:]:
            file.write(level, description=about, **TILED)
        file.write(small[:64], description="Aperio Image Library v12.0.15\r\nlabel 9x9", subfiletype=1, **options)
        file.write(small[:90], description="Aperio Image Library v12.0.15\r\nmacro 9x9", subfiletype=9, **options)
    return path


def write_tiff(path: Path, image: Array, mpp: float = 0.5, levels: int = 3, **options: Any) -> Path:
    """Write a pyramid of pages; ``options`` are those of ``TiffWriter`` and of its pages."""
    file_options = {name: options.pop(name) for name in ("byteorder", "bigtiff") if name in options}
    with tifffile.TiffWriter(path, **file_options) as file:
        for k, level in enumerate(levels_of(image, levels)):
            file.write(level, subfiletype=min(k, 1), **(TILED | options), **centimeters(mpp, 2**k))
    return path


def write_subifds(path: Path, image: Array, mpp: float = 0.5) -> Path:
    """Write a pyramid whose levels are directories of the first page, as ``vips tiffsave --subifd`` does."""
    images = levels_of(image)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(image, subifds=len(images) - 1, **TILED, **centimeters(mpp))
        for level in images[1:]:
            file.write(level, subfiletype=1, **TILED)
    return path


def write_ome(
    path: Path,
    image: Array,
    mpp: float = 0.5,
    unit: str = "µm",
    planes: bool = False,
    channel: Any = None,
    bits: int | None = None,
    others: int = 0,
) -> Path:
    """Write an OME-TIFF with its levels as SubIFDs.

    Args:
        path: path of the file.
        image: pixels (height, width, channels).
        mpp: side of a pixel in ``unit``.
        unit: unit of ``mpp``.
        planes: whether each channel has pages of its own.
        channel: attributes of the channels.
        bits: significant bits.
        others: number of smaller images before that of the slide.
    """
    metadata: dict[str, Any] = {"axes": "CYX" if planes else "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": unit}
    metadata |= {"PhysicalSizeY": mpp, "PhysicalSizeYUnit": unit}
    metadata |= {"SignificantBits": bits} if bits else {}
    metadata |= {"Channel": channel} if channel else {}
    options = TILED | {"photometric": "minisblack" if planes else "rgb"}
    images = [np.ascontiguousarray(np.moveaxis(v, -1, 0)) if planes else v for v in levels_of(image)]
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        for number in range(others):
            file.write(
                image[: 300 - number, :400, :3], photometric="rgb", metadata={"axes": "YXS", "Name": f"scene {number}"}
            )
        file.write(images[0], subifds=len(images) - 1, **(options | {"metadata": metadata}))
        for level in images[1:]:
            file.write(level, subfiletype=1, **options)
    return path


def write_ome_planes(path: Path, image: Array, mpp: float = 0.5) -> Path:
    """Write the OME-TIFF that the documentation of libvips shows, whose XML does not state where each plane is."""
    height, width = image.shape[:2]
    images = levels_of(image)
    with tifffile.TiffWriter(path) as file:
        for channel in range(3):
            about = {} if channel else {"description": OME_PLANES.format(width=width, height=height, mpp=mpp)}
            options = TILED | {"photometric": "minisblack"}
            file.write(images[0][..., channel], subifds=len(images) - 1, **about, **options)
            for level in images[1:]:
                file.write(level[..., channel], subfiletype=1, **options)
    return path


def write_qptiff(path: Path, image: Array, mpp: float = 0.5) -> Path:
    """Write a brightfield QPTIFF: base, thumbnail, levels."""
    images = levels_of(image)
    kinds = ["FullResolution", "Thumbnail", "ReducedResolution", "ReducedResolution"]
    small = np.ascontiguousarray(images[-1][::2, ::2])
    with tifffile.TiffWriter(path) as file:
        for kind, level in zip(kinds, [images[0], small, *images[1:]], strict=True):
            factor = image.shape[1] / level.shape[1]
            options = TILED if kind != "Thumbnail" else {"photometric": "rgb", "metadata": None}
            options = options | centimeters(mpp, factor)
            about = QPI.format(kind=kind)
            file.write(level, description=about, software="PerkinElmer-QPI", subfiletype=kind != kinds[0], **options)
    return path


def write_planar(path: Path, image: Array, mpp: float) -> Path:
    """Write a page whose channels are apart."""
    options = TILED | {"planarconfig": "separate"} | centimeters(mpp)
    tifffile.imwrite(path, np.ascontiguousarray(np.moveaxis(image, -1, 0)), **options)
    return path


# writer(path, image, mpp) of each container by the suffix of its files, which gives the path that a user would name
CONTAINERS: dict[str, tuple[str, Callable[..., Path]]] = {
    "Aperio SVS": ("s.svs", write_aperio),
    "Leica SCN": ("s.scn", lambda path, image, mpp: write_scn(path, image, mpp, (4_000, 5_000), (1_001, 999))),
    "generic TIFF": ("s.tif", write_tiff),
    "BigTIFF": ("s.tif", lambda *args: write_tiff(*args, bigtiff=True)),
    "LZW": ("s.tif", lambda *args: write_tiff(*args, compression="lzw")),
    "JPEG 2000": ("s.tif", lambda *args: write_tiff(*args, compression="jpeg2000")),
    "big-endian": ("s.tif", lambda *args: write_tiff(*args, byteorder=">")),
    "strips": ("s.tif", lambda *args: write_tiff(*args, levels=1, tile=None, rowsperstrip=64)),
    "one strip": ("s.tif", lambda *args: write_tiff(*args, levels=1, tile=None, rowsperstrip=9999, compression=None)),
    "SubIFDs": ("s.tif", write_subifds),
    "planar": ("s.tif", write_planar),
    "OME-TIFF": ("s.ome.tif", write_ome),
    "OME-TIFF in nm": ("s.ome.tif", lambda path, image, mpp: write_ome(path, image, mpp * 1000, "nm")),
    "OME-TIFF in mm": ("s.ome.tif", lambda path, image, mpp: write_ome(path, image, mpp / 1000, "mm")),
    "OME-TIFF, planes": (
        "s.ome.tif",
        lambda *args: write_ome(*args, planes=True, channel={"Name": ["Red", "Green", "Blue"]}),
    ),
    "OME-TIFF by libvips": ("s.tif", write_ome_planes),
    "OME-TIFF, 3 images": ("s.ome.tif", lambda *args: write_ome(*args, others=2)),
    "QPTIFF": ("s.qptiff", write_qptiff),
    "DICOM": ("dicom", write_dicom),
}
