"""Check of TIFF files that were cut off, since readers drop what lies beyond the end, such as levels."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["ends_early", "is_tiff"]

SUBIFDS = 330
OFFSETS, COUNTS = (273, 324), (279, 325)  # tags of the strips or tiles
# codes of struct for the types of values
TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
TYPES |= {16: "Q", 17: "q", 18: "Q"}
MOST = 10_000  # directories
PRIVATE = 32_768  # tags from here on, which readers ignore


class _Format(NamedTuple):
    order: str  # of bytes, < or >
    entries: str  # struct format of their number in a directory
    offset: str
    first: int  # position of the offset of the first directory


FORMATS = {
    b"II*\0": _Format("<", "H", "I", 4),
    b"MM\0*": _Format(">", "H", "I", 4),
    b"II+\0": _Format("<", "Q", "Q", 8),
    b"MM\0+": _Format(">", "Q", "Q", 8),
}


def is_tiff(path: Path) -> bool:
    """Return whether the file starts as a TIFF file does."""
    with path.open("rb") as file:
        return file.read(4) in FORMATS


def ends_early(path: Path) -> bool:
    """Return whether a directory, a value or a tile of a TIFF file lies beyond its end."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        form = FORMATS[file.read(4)]
        try:
            todo, known = [_number(file, form, form.first, form.offset)], set[int]()
            while todo and len(known) < MOST:
                start = todo.pop()
                if start and start not in known:
                    known.add(start)
                    todo += _directory(file, form, start, size)
        except EOFError:
            return True
    return False


def _directory(file: Any, form: _Format, start: int, size: int) -> list[int]:
    """Return the offsets of the next directory and of the levels in this one."""
    entries = _number(file, form, start, form.entries)
    head = start + struct.calcsize(form.order + form.entries)
    length = struct.calcsize(f"{form.order}HH{form.offset}{form.offset}")
    values: dict[int, tuple[int, ...]] = {}
    for k in range(entries):
        tag, kind, count = _unpack(file, form, head + k * length, f"HH{form.offset}")
        layout = TYPES.get(kind, "B")
        bytes_ = struct.calcsize(form.order + layout) * count
        place = head + k * length + 4 + struct.calcsize(form.offset)
        if bytes_ > struct.calcsize(form.offset):
            place = _number(file, form, place, form.offset)
        if tag < PRIVATE and place + bytes_ > size:
            raise EOFError
        if tag in (SUBIFDS, *OFFSETS, *COUNTS):
            values[tag] = _unpack(file, form, place, f"{count}{layout}")
    for offsets, counts in zip(OFFSETS, COUNTS, strict=True):
        ends = map(sum, zip(values.get(offsets, ()), values.get(counts, ()), strict=False))
        if max(ends, default=0) > size:
            raise EOFError
    return [_number(file, form, head + entries * length, form.offset), *values.get(SUBIFDS, ())]


def _number(file: Any, form: _Format, place: int, layout: str) -> int:
    return int(_unpack(file, form, place, layout)[0])


def _unpack(file: Any, form: _Format, place: int, layout: str) -> tuple[Any, ...]:
    length = struct.calcsize(form.order + layout)
    file.seek(place)
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return struct.unpack(form.order + layout, content)
