"""Choice of one stack of slices from a DICOM series: what is left out, and what tells several stacks apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence, Sized
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import InputError

from .dicom_files import DIMENSIONS
from .dicom_frames import read_stored
from .dicom_slices import SeriesSlice

__all__ = ["choose_series", "choose_stack", "drop_copies", "drop_lone_slices", "drop_scouts"]

SAME_PLACE = 0.01  # mm
SHOWN = 12  # stacks that a message lists
MOST = 10  # dimensions that are tried in combination
PRIVATE = ("StackID", "ConvolutionKernel", "AcquisitionTime", "FrameReferenceDateTime")  # values that are not shown
UNITS = {
    "echo time": "ms",
    "inversion time": "ms",
    "trigger delay": "ms",
    "trigger time": "ms",
    "flip angle": "degrees",
}
PLANES = ("sagittal", "coronal", "axial")  # by the axis of their normal
Key = Callable[[SeriesSlice], Hashable]


class _Stack(NamedTuple):
    """Slices of one orientation, with one slice a position, and what tells them from the others of the series."""

    slices: list[SeriesSlice]
    name: str


def choose_series(slices: Sequence[SeriesSlice], series: str | None) -> tuple[list[SeriesSlice], list[str]]:
    """Return the slices of the requested series, or of the only one that is no scout, and notes on what is left out.

    Raises:
        InputError: when several match or none does; the message lists them.
    """
    wanted = [s for s in slices if series is None or str(series) in (s.series[0], s.series[2], s.description)]
    uids = {s.series[0] for s in wanted}
    images = {s.series[0] for s in wanted if not s.scout}
    if series is None and len(uids) > 1 and len(images) == 1:
        chosen = [s for s in wanted if s.series[0] in images]
        return chosen, [_note(len(wanted) - len(chosen), "scout")]
    if len(uids) == 1:
        return wanted, []
    available = Counter(s.series for s in (wanted if uids else slices))
    rows = [
        f"{_count(range(n))} of modality {modality}, series number {no}" for (_, modality, no), n in available.items()
    ]
    text = f"{len(available)}: {'; '.join(sorted(rows))}."
    if series is None:
        message = f"`image` must be a folder with one series, got {text} Choose one by `series`."
        raise InputError(message, "--series NUMBER")
    matches = "more than one of" if uids else "none of"
    raise InputError(f"`series` must be UID, description or number of one series, got {matches} {text}")


def drop_scouts(slices: Sequence[SeriesSlice]) -> tuple[list[SeriesSlice], list[str]]:
    """Leave out scouts (localizers) of a series that has other slices too."""
    kept = [item for item in slices if not item.scout]
    return (kept, [_note(len(slices) - len(kept), "scout")]) if 0 < len(kept) < len(slices) else (list(slices), [])


def drop_copies(slices: Sequence[SeriesSlice]) -> tuple[list[SeriesSlice], list[str]]:
    """Leave out slices whose object is there twice, with the same identity, geometry and pixels.

    Raises:
        InputError: when objects of one identity differ.
    """
    first: dict[tuple[str, int | None], SeriesSlice] = {}
    kept: list[SeriesSlice] = []
    copies: dict[tuple[Path, Path], list[tuple[SeriesSlice, SeriesSlice]]] = {}
    for item in slices:
        same = first.setdefault((item.uid, item.frame), item) if item.uid else item
        if same is item:
            kept.append(item)
        else:
            copies.setdefault((same.path, item.path), []).append((same, item))
    if not all(map(_equal, copies.values())):
        raise InputError("`image` must have one image for each SOPInstanceUID, got two that differ under one UID.")
    dropped = len(slices) - len(kept)
    return kept, [_note(dropped, "exact copy of a slice", "exact copies of slices")] if dropped else []


def drop_lone_slices(slices: Sequence[SeriesSlice]) -> tuple[list[SeriesSlice], list[str]]:
    """Leave out a few slices of another orientation, size or spacing than at least three that agree.

    Slices of another size within the stack of the others are kept, so that they are refused: they are part of it.
    """
    kinds = _clusters(slices, _same_grid)
    most = max(kinds, key=len)
    few = len(slices) - len(most)
    if not few or len(most) < 3 or few > max(1, len(most) // 10):
        return list(slices), []
    lone = [item for kind in kinds if kind is not most for item in kind]
    if any(item.fault or _lies_within(item, most) for item in lone):
        return list(slices), []
    return most, [_note(few, "slice of another orientation or size", "slices of another orientation or size")]


def choose_stack(slices: Sequence[SeriesSlice], stack: str | int | None) -> tuple[list[SeriesSlice], list[str]]:
    """Return the slices of the requested stack of a series, or of the only one.

    Slices of another orientation or stack ID are another stack. So are slices at the same positions, if something else
    tells which belong together: a temporal position, an echo, a b value, ...

    Args:
        slices: slices of a series.
        stack: number of the stack, from 1, or its name, as the error message lists them.

    Raises:
        InputError: when there are several and none is requested, or it doesn't exist.
    """
    stacks = _stacks(slices)
    if stack is None and len(stacks) == 1:
        return stacks[0].slices, []
    rows = [f"{k}: {_count(s.slices)}{f' ({s.name})' if s.name else ''}" for k, s in enumerate(stacks, 1)]
    rest = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    text = f"{len(stacks)} in a series: {'; '.join(rows[:SHOWN])}{rest}."
    if stack is None:
        raise InputError(f"`image` must be one stack of slices, got {text} Choose one by `stack`.", "--stack NUMBER")
    wanted = " ".join(str(stack).split()).lower()
    names = {str(k): s for k, s in enumerate(stacks, 1)} | {s.name.lower(): s for s in stacks if s.name}
    if wanted not in names:
        raise InputError(f"`stack` must be number or name of a stack, got none of {text}")
    chosen = names[wanted]
    note = f"One of {len(stacks)} stacks was read{f': {chosen.name}' if chosen.name else ''}."
    return chosen.slices, [note] if len(stacks) > 1 else []


def _stacks(slices: Sequence[SeriesSlice]) -> list[_Stack]:
    identified = {item.dimensions.get("StackID", "") for item in slices}
    stacks = []
    for plane in _clusters(slices, _same_plane):
        parts = _split(plane, ["StackID"]) if len(identified) > 1 else [_Stack(plane, "")]
        for part in parts:
            stacks += [s._replace(name=_joined(part.name, s.name)) for s in _phases(part.slices)]
    if len(_clusters(slices, _same_plane)) > 1:
        stacks = [s._replace(name=_joined(_plane_name(s.slices[0]), s.name)) for s in stacks]
    seen: Counter[str] = Counter()
    named = []
    for item in sorted(stacks, key=_order):
        seen[item.name] += 1
        number = f" no. {seen[item.name]}" if seen[item.name] > 1 else ""
        named.append(item._replace(name=f"{item.name}{number}"))
    return named


def _phases(slices: list[SeriesSlice]) -> list[_Stack]:
    """Split slices with several at a position; if nothing tells which belong together, return them as they are."""
    places = _places(slices)
    times = int(np.bincount(places).max())
    if times == 1:
        return [_Stack(slices, "")]
    varying = [tag for tag in DIMENSIONS if _varies_within(tag, slices, places)][:MOST]
    for count in (1, 2, 3):
        for tags in combinations(varying, count):
            parts = _split(slices, tags)
            if len(parts) == times and all(_single(part.slices) for part in parts):
                return parts
    return _ranked(slices, places, times) or [_Stack(slices, "")]


def _ranked(slices: Sequence[SeriesSlice], places: NDArray[np.int64], times: int) -> list[_Stack]:
    """Split slices by their order at each position: in time of a heart beat, or of the numbers of their images."""
    if (np.bincount(places) != times).any():
        return []
    orders: dict[str, list[float]] = {
        "trigger time": [_float(item.dimensions.get("TriggerTime", "")) for item in slices],
        "image number": [float(item.instance_number or np.nan) for item in slices],
    }
    for name, values in orders.items():
        if np.isnan(values).any() or len(set(zip(places.tolist(), values, strict=True))) < len(slices):
            continue
        at_place: dict[int, list[int]] = {}
        for k in np.argsort(values, kind="stable"):
            at_place.setdefault(int(places[k]), []).append(int(k))
        return [
            _Stack([slices[found[rank]] for found in at_place.values()], f"no. {rank + 1} by {name}")
            for rank in range(times)
        ]
    return []


def _varies_within(tag: str, slices: Sequence[SeriesSlice], places: NDArray[np.int64]) -> bool:
    """Return whether a dimension tells slices of one position apart."""
    values = {(place, item.dimensions.get(tag, "")) for place, item in zip(places.tolist(), slices, strict=True)}
    return len(values) > len(set(places.tolist()))


def _split(slices: Sequence[SeriesSlice], tags: Sequence[str]) -> list[_Stack]:
    groups: dict[tuple[str, ...], list[SeriesSlice]] = {}
    for item in slices:
        groups.setdefault(tuple(item.dimensions.get(tag, "") for tag in tags), []).append(item)
    ranks = [sorted(set(values)) for values in zip(*groups, strict=True)]
    return [
        _Stack(items, ", ".join(_value_name(t, v, r.index(v) + 1) for t, v, r in zip(tags, key, ranks, strict=True)))
        for key, items in groups.items()
    ]


def _value_name(tag: str, value: str, rank: int) -> str:
    """Return a text on a value, or its rank if it is free text, which may name a patient."""
    name = DIMENSIONS[tag]
    if not value:
        return f"no {name}"
    parts = value.split("\\")
    shown = value.isdigit() if tag in PRIVATE[:1] else tag not in PRIVATE
    if not shown or not all(re.fullmatch(r"[A-Z0-9_ ]{1,16}|[0-9.eE+-]{1,24}", part) for part in parts):
        return f"{name} no. {rank}"
    numbers = [part if np.isnan(_float(part)) else format(_float(part), "g") for part in parts]
    return " ".join(filter(None, (name, "/".join(numbers), UNITS.get(name, ""))))


def _joined(first: str, second: str) -> str:
    return ", ".join(filter(None, (first, second)))


def _order(stack: _Stack) -> tuple[list[tuple[int, float, str]], int]:
    """Return a key by which stacks are sorted: names with their numbers as numbers, then the first image."""
    parts = re.split(r"(-?\d+(?:\.\d+)?)", stack.name)
    key = [(1, float(part), "") if k % 2 else (0, 0.0, part) for k, part in enumerate(parts)]
    return key, min(item.instance_number for item in stack.slices)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _places(slices: Sequence[SeriesSlice]) -> NDArray[np.int64]:
    """Return the index of the position of each slice along the normal of the first one, if it has one."""
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    if not normal.any():
        return np.arange(len(slices))
    heights = np.array([item.position @ normal for item in slices])
    order = np.argsort(heights, kind="stable")
    places = np.empty(len(slices), np.int64)
    places[order] = np.cumsum(np.concatenate([[0], np.diff(heights[order]) >= SAME_PLACE]).astype(np.int64))
    return places


def _single(slices: Sequence[SeriesSlice]) -> bool:
    return len(set(_places(slices).tolist())) == len(slices)


def _clusters(
    slices: Sequence[SeriesSlice], same: Callable[[SeriesSlice, SeriesSlice], bool]
) -> list[list[SeriesSlice]]:
    clusters: list[list[SeriesSlice]] = []
    for item in slices:
        cluster = next((c for c in clusters if same(c[0], item)), None)
        if cluster is None:
            clusters.append([item])
        else:
            cluster.append(item)
    return clusters


def _same_plane(a: SeriesSlice, b: SeriesSlice) -> bool:
    return bool(abs(a.orientation - b.orientation).max() <= 1e-3)


def _same_grid(a: SeriesSlice, b: SeriesSlice) -> bool:
    return a.size == b.size and bool(abs(a.spacing - b.spacing).max() <= 1e-4) and _same_plane(a, b)


def _lies_within(item: SeriesSlice, others: Sequence[SeriesSlice]) -> bool:
    """Return whether a slice is between others of its orientation, so that it is missing in their stack."""
    if not _same_plane(item, others[0]):
        return False
    normal = np.cross(item.orientation[:3], item.orientation[3:])
    heights = np.array([other.position @ normal for other in others])
    height = item.position @ normal
    return bool(heights.min() < height < heights.max() and abs(heights - height).min() >= SAME_PLACE)


def _plane_name(item: SeriesSlice) -> str:
    normal = abs(np.cross(item.orientation[:3], item.orientation[3:]))
    axis = int(np.argmax(normal))
    return f"{'' if normal[axis] > 0.99 * np.linalg.norm(normal) else 'oblique '}{PLANES[axis]}"


def _equal(pairs: Sequence[tuple[SeriesSlice, SeriesSlice]]) -> bool:
    """Return whether the slices of two files are the same: geometry, rescaling and pixels."""
    if not all(map(_same_header, *zip(*pairs, strict=True))):
        return False
    first, second = (
        read_stored(items[0].path, [item.frame or 0 for item in items]) for items in zip(*pairs, strict=True)
    )
    return all(map(np.array_equal, first, second))


def _same_header(a: SeriesSlice, b: SeriesSlice) -> bool:
    plain = ("series", "size", "rescale", "constants", "thickness", "fault")
    arrays = ("position", "orientation", "spacing")
    same = all(getattr(a, name) == getattr(b, name) for name in plain)
    return same and not a.fault and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)


def _count(slices: Sized) -> str:
    return f"{len(slices)} slice{'s'[: len(slices) != 1]}"


def _note(count: int, kind: str, kinds: str = "") -> str:
    return f"{count} {kind if count == 1 else kinds or kind + 's'} {'was' if count == 1 else 'were'} left out."
