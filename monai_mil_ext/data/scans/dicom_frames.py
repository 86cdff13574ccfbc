"""Voxels of the slices of a DICOM series: decoded, checked against the header, and rescaled one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import InputError, optional_dependency

from .dicom_files import num_frames, transfer_syntax
from .dicom_slices import SeriesSlice

__all__ = ["read_stored", "read_voxels"]

itk = optional_dependency("", "itk")
pydicom = optional_dependency("dicom", "pydicom")
pixels = optional_dependency("dicom", "pydicom.pixels")

UNDAMAGED = "`image` must be a readable, undamaged scan, got"
PLUGINS = {"JPEG-LS": "pyjpegls", "2000": "pylibjpeg-openjpeg", "JPEG": "pylibjpeg-libjpeg"}  # by words in the syntax
RLE, EXTENDED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.51"
TAGS = (
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "PixelData",
)
OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
JPEG_END = b"\xff\xd9"
SIZES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}  # SOF markers of JPEG


class _StoredBits(NamedTuple):
    """Bits of a pixel that are its value; the others may hold anything, such as an overlay."""

    allocated: int
    stored: int
    low: int  # lowest one
    signed: bool

    @classmethod
    def of(cls, dataset: Any) -> _StoredBits:
        allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored", 0) or dataset.BitsAllocated)
        low = int(dataset.get("HighBit", None) or stored - 1) + 1 - stored
        if allocated in (stored, 1):
            low = 0
        elif not 0 < stored < allocated or not 0 <= low <= allocated - stored:
            raise InputError(f"{UNDAMAGED} a DICOM file with {stored} bits of {allocated} stored.")
        return cls(allocated, stored, low, int(dataset.get("PixelRepresentation", 0) or 0) == 1)

    def of_pixels(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the values of pixels."""
        if self.allocated in (self.stored, 1):
            return pixels
        values = (pixels.astype(np.int64) >> self.low) & ((1 << self.stored) - 1)
        return np.where(values >> (self.stored - 1), values - (1 << self.stored), values) if self.signed else values


def read_voxels(stack: Sequence[SeriesSlice]) -> NDArray[np.float32]:
    """Return the voxels (X, Y, Z) of sorted slices, each rescaled with its own slope and intercept.

    Each file is read once, also if it has several of the frames.

    Raises:
        InputError: when pixels can't be decoded, or have another size than their header says.
    """
    voxels = np.empty((0, 0, 0), np.float32)
    files: dict[Path, list[int]] = {}
    for k, item in enumerate(stack):
        files.setdefault(item.path, []).append(k)
    for path, indices in files.items():
        indices.sort(key=lambda k: stack[k].frame or 0)
        frames = read_stored(path, [stack[k].frame or 0 for k in indices])
        for k, values in zip(indices, frames, strict=True):
            if not voxels.size:  # not before the first slice has the size that its header says
                voxels = np.empty((len(stack), *values.shape), np.float32)
            slope, intercept = stack[k].rescale
            voxels[k] = values * slope + intercept
    return voxels.transpose(2, 1, 0)


def read_stored(path: Path, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield the stored values (rows, columns) of some frames of a file, in ascending order.

    Raises:
        InputError: see :py:func:`read_voxels`.
    """
    try:
        dataset = pydicom.dcmread(path, force=True, specific_tags=[*TAGS, *OFFSETS])
        syntax = transfer_syntax(dataset)
        dataset.file_meta.TransferSyntaxUID = syntax
        shape = (int(dataset.Rows), int(dataset.Columns))
        if syntax.is_compressed and not syntax.is_deflated:
            _check_sizes(dataset, syntax, shape, frames)
        bits = _StoredBits.of(dataset)
        if bits.low and (not syntax.is_compressed or syntax.is_deflated or syntax == RLE):
            # pydicom takes the lowest bits for those of the values, wherever they are
            dataset.BitsStored, dataset.HighBit = bits.allocated, bits.allocated - 1
        for values in _decoded(dataset, syntax, frames):
            if values.shape != shape:
                raise InputError(f"{UNDAMAGED} pixels of another size than {_size(shape)}.")
            yield bits.of_pixels(values)
    except (InputError, ImportError, GeneratorExit):
        raise
    except Exception:  # the file is the cause of whatever a decoder raises; its text may have names
        raise InputError(f"{UNDAMAGED} a DICOM file with pixels that can't be decoded.") from None


def _decoded(dataset: Any, syntax: Any, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    if int(pydicom.__version__.split(".")[0]) < 3:  # as in MONAI Label
        every = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    elif _has_decoder(syntax):
        yield from pixels.iter_pixels(dataset, indices=list(frames), raw=True)
        return
    else:
        yield from _read_with_itk(dataset, syntax, frames)
        return
    yield from (every[k] for k in frames)


def _has_decoder(syntax: Any) -> bool:
    """Return whether pydicom decodes a transfer syntax; pillow, which it may take, has 8 bits only for one of them."""
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        return False
    plugins = set(decoder.available_plugins) - ({"pillow"} if syntax == EXTENDED else set())
    return bool(plugins) or not syntax.is_compressed or bool(syntax.is_deflated)


def _read_with_itk(dataset: Any, syntax: Any, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield the stored values (rows, columns) of frames that pydicom has no decoder for."""
    kind = next((package for word, package in PLUGINS.items() if word in syntax.name), "")
    name = syntax.name if syntax.is_transfer_syntax else "an unknown encoding"
    advice = f"; install a decoder: pip install {kind}" if kind else ""
    encoded = list(_encoded_frames(dataset))
    if not all(frame.rstrip(b"\0").endswith(JPEG_END) for frame in encoded):
        raise InputError(f"{UNDAMAGED} a DICOM file with compressed pixels that are cut.")
    for k in frames:
        try:
            yield _decode_with_itk(encoded[k], dataset, syntax)
        except (ImportError, GeneratorExit):
            raise
        except Exception:
            raise InputError(f"`image` must have pixels that can be decoded, got {name}{advice}.") from None


def _decode_with_itk(frame: bytes, dataset: Any, syntax: Any) -> NDArray[Any]:
    """Return the stored values of a compressed frame.

    ITK reads a file with nothing else in it, since by other tags it inverts and rescales values, or crashes.
    """
    single = pydicom.Dataset()
    single.file_meta = pydicom.dataset.FileMetaDataset()
    single.file_meta.TransferSyntaxUID = syntax
    single.SOPClassUID, single.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    for tag in TAGS[1:7]:
        setattr(single, tag, int(dataset[tag].value))
    single.SamplesPerPixel, single.PhotometricInterpretation = 1, "MONOCHROME2"
    if single.BitsAllocated not in (8, 16) or not 0 < single.BitsStored <= single.BitsAllocated:
        raise ValueError("no JPEG has pixels of this many bits")
    single.HighBit = single.BitsStored - 1
    single.PixelData = pydicom.encaps.encapsulate([frame])
    single["PixelData"].VR, single["PixelData"].is_undefined_length = "OB", True
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "frame.dcm")
        single.save_as(file, enforce_file_format=True)
        image = itk.imread(file, itk.D, imageio=itk.GDCMImageIO.New(FileName=file))
        return itk.array_from_image(image).reshape(single.Rows, single.Columns).astype(np.int64)


def _check_sizes(dataset: Any, syntax: Any, shape: tuple[int, int], frames: Sequence[int]) -> None:
    """Raise unless compressed frames have as many rows and columns as the header says.

    Decoders compare the number of pixels at most: ITK fills what is missing with whatever is in memory.
    """
    wanted = set(frames)
    encoded = list(_encoded_frames(dataset))
    if len(encoded) <= max(wanted):
        raise InputError(f"{UNDAMAGED} a DICOM file with {len(encoded)} frames of pixels where more are stated.")
    for frame in (encoded[k] for k in sorted(wanted)):
        size = _rle_size(frame, shape) if syntax == RLE else _jpeg_size(frame)
        if size is not None and size != shape:
            raise InputError(
                f"{UNDAMAGED} a DICOM file with compressed pixels of {_size(size)} where {_size(shape)} are stated."
            )


def _encoded_frames(dataset: Any) -> Iterator[bytes]:
    if hasattr(pydicom.encaps, "generate_frames"):
        offsets = tuple(bytes(dataset[tag].value) for tag in OFFSETS if tag in dataset)
        options = {"extended_offsets": offsets} if len(offsets) == 2 else {}
        return iter(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=num_frames(dataset), **options))
    return iter(pydicom.encaps.generate_pixel_data_frame(dataset.PixelData, num_frames(dataset)))


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Return rows and columns from the markers of a JPEG, JPEG-LS or JPEG 2000 stream, or None for another one."""
    start = frame.find(b"\xff\x4f\xff\x51")  # possibly in the boxes of a JP2 file
    if start >= 0:
        width, height, left, top = (int.from_bytes(frame[start + i : start + i + 4], "big") for i in (8, 12, 16, 20))
        return height - top, width - left
    if frame[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 < len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in SIZES:
            if frame[place + 9] != 1:  # components: color, or none
                return 0, 0
            rows, columns = frame[place + 5 : place + 7], frame[place + 7 : place + 9]
            return int.from_bytes(rows, "big"), int.from_bytes(columns, "big")
        place += 1 if marker == 0xFF else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _rle_size(frame: bytes, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the size if the segments have as many bytes as it needs, else that which they have as one row."""
    count = int.from_bytes(frame[:4], "little")
    starts = [int.from_bytes(frame[4 * k : 4 * k + 4], "little") for k in range(1, min(count, 15) + 1)]
    needed = shape[0] * shape[1]
    for first, last in zip(starts, [*starts[1:], len(frame)], strict=True):
        length = _unpacked_length(frame[first:last])
        if not needed <= length <= needed + 2:  # padded to an even length
            return 1, length
    return shape


def _unpacked_length(segment: bytes) -> int:
    """Return the number of bytes that a segment of PackBits stands for; a byte of padding may follow."""
    place = length = 0
    while place < len(segment) - 1:
        code = segment[place]
        if code == 128:
            place += 1
            continue
        length += code + 1 if code < 128 else 257 - code
        place += code + 2 if code < 128 else 2
    return length


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
