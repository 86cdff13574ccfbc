"""Time and disk that the features of a cohort will take, from headers and the measured speed of the encoder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch import nn

from monai_mil_ext.data import FeatureCache
from monai_mil_ext.transforms import EncodeInstances, EncodeInstancesd
from monai_mil_ext.transforms.slides import TileBagd

from .check_settings import CASE, CheckedCase

__all__ = ["EncodingEstimate", "EncodingPlan"]

BATCH = 32  # images that are encoded between two looks at the clock
SECONDS = 2.0  # of dummy batches
LONGEST = 5.0  # of a chunk, by the time of one image
PREPARING = 2.0  # s of real cases that are read and cut
MAX_VOXELS = 10**8  # of a scan that is read for its speed
MAX_SIDE = 8192  # pixels of the coarsest level of a slide whose tissue is looked at
TILES = 16  # that are read for their speed
PER_FILE, PER_KEY = 1500, 1000  # bytes of a feature file besides its arrays
NUM_KEYS = 4  # of a feature file, if there is no cache that knows them
LONG = 90.0
SCHEDULE = Path("/proc/thread-self/schedstat")  # ns of work and of waiting for a core, and the number of turns


class EncodingEstimate(NamedTuple):
    """Estimate of the time and the disk that missing features take.

    Args:
        num_cases: number of cases that are to be encoded or have been.
        num_encoded: number of those that have features.
        num_instances: number of instances to encode.
        seconds: estimated time.
        size: estimated size of the files in bytes.
        speed: instances that the encoder takes in a second on this machine.
        notes: how it was measured.
    """

    num_cases: int
    num_encoded: int
    num_instances: int
    seconds: float
    size: int
    speed: float
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Text of the estimate.

        Example:
            >>> print(EncodingEstimate(60, 12, 5000, 1440, 3 * 10**8, 3.5).sentence)
            Encoding will take about 24 min and 0.3 GB for 60 cases, of which 12 are encoded already (3.5 instances/s).
        """
        if self.num_encoded == self.num_cases:
            return f"All {self.num_cases} cases are encoded already."
        done = f", of which {self.num_encoded} are encoded already" if self.num_encoded else ""
        speed = f"{self.speed:.3g} instances/s"
        return (
            f"Encoding will take about {_duration(self.seconds)} and {_size(self.size)} for {self.num_cases} cases"
            f"{done} ({speed})."
        )


@dataclass(frozen=True)
class EncodingPlan:
    """Plan of the encoding of a cohort, for an estimate of its time.

    The speed of the encoder is measured by dummy batches, and that of reading and cutting by the smallest cases, in
    about 5 s together. What other programs take of a busy machine does not count.

    Args:
        encoder: network that maps images to features; None if nothing is to be encoded.
        size: height and width of an image of the encoder.
        channels: number of its channels.
        chunk_size: number of images that are encoded at once; ``None``: see ``EncodeInstances``.
        device: device of the encoder.
        transform: preprocessing of a case; what precedes the encoding is timed.
        cache: features that have been computed.
        weights: file of the weights, whose absence is noted.
    """

    encoder: nn.Module | None
    size: int | Sequence[int] | None = 224
    channels: int = 1
    chunk_size: int | None = None
    device: str | torch.device | None = None
    transform: Callable[[Any], Any] | None = None
    cache: FeatureCache | None = None
    weights: str | None = field(default=None)

    def estimate(self, cases: Sequence[CheckedCase]) -> EncodingEstimate | None:
        """Estimate the time for the scans and slides among the cases whose headers could be read; None without any."""
        usable = [case for case in cases if case.facts.get("kind") in ("scan", "slide") and not case.problems]
        if not usable:
            return None
        done = self._done(usable)
        for case in usable:
            case.facts["encoded"] = case.name in done
        missing = [case for case in usable if case.name not in done]
        notes = [] if self.weights is None or Path(self.weights).is_file() else [_no_weights()]
        if not missing:
            return EncodingEstimate(len(usable), len(done), 0, 0.0, 0, math.nan, tuple(notes))
        prepared = _Preparation.measure(missing, self.transform)
        counts = np.array([prepared.instances(case) for case in missing])
        speed, width = self._speed(missing)
        seconds = counts.sum() / speed + sum(map(prepared.seconds, missing, counts))
        keys = NUM_KEYS if self.cache is None else len(self.cache.keys)
        size = len(missing) * (PER_FILE + PER_KEY * keys) + counts.sum() * (4 * width + 8 * (keys - 1))
        notes += prepared.notes
        return EncodingEstimate(
            len(usable), len(done), int(counts.sum()), float(seconds), int(size), speed, tuple(notes)
        )

    def _done(self, cases: Sequence[CheckedCase]) -> set[str]:
        if self.cache is None:
            return set()
        return {case.name for case in cases if self.cache.is_done(case.item)}

    def _speed(self, cases: Sequence[CheckedCase]) -> tuple[float, int]:
        """Return the instances of a second, and the width of the features."""
        sides = [self.size] * 2 if isinstance(self.size, int) else self.size
        if sides is None:
            sides = cases[len(cases) // 2].facts["shape"][:2]
        if self.encoder is None:
            raise ValueError("`encoder` must be a network for an estimate, got None.")
        encode = EncodeInstances(self.encoder, self.chunk_size, self.device)
        batch = torch.rand(self.chunk_size or BATCH, self.channels, *sides)
        width = encode(batch[:1]).shape[1]
        start = time.perf_counter()
        encode(batch[:1])
        # whole chunks, since their size changes the speed severalfold, unless one of them takes too long
        batch = batch[: max(1, int(LONGEST / max(time.perf_counter() - start, 1e-6)))]
        start, end, count = _clock(), time.perf_counter() + SECONDS, 0
        while not count or time.perf_counter() < end:
            encode(batch)
            count += len(batch)
        return count / (_clock() - start), width


@dataclass
class _Preparation:
    """Speed of reading and cutting, of a few cases."""

    per_voxel: float = 0.0  # s, of scans
    per_tile: float = 0.0  # s
    per_slide: float = 0.0  # s
    kept: float = 1.0  # part of the tiles that have tissue
    notes: list[str] = field(default_factory=list)

    @classmethod
    def measure(cls, cases: Sequence[CheckedCase], transform: Callable[[Any], Any] | None) -> _Preparation:
        """Run what precedes the encoding on the smallest cases, for about two seconds."""
        if transform is None:
            return cls(notes=["reading was not measured"])
        steps = list(Compose(transform).flatten().transforms)
        before = Compose(steps[: _encoding(steps)])
        if isinstance(next(iter(steps), None), TileBagd):
            return cls._of_slides(cases, before)
        return cls._of_scans(cases, before)

    @classmethod
    def _of_scans(cls, cases: Sequence[CheckedCase], before: Compose) -> _Preparation:
        found, start = cls(), time.perf_counter()
        voxels, seconds = 0, 0.0
        for i, case in enumerate(sorted(cases, key=_voxels)):
            if time.perf_counter() - start > PREPARING or _voxels(case) > MAX_VOXELS:
                break
            begin = _clock()
            if _run(before, case) is not None and i:  # the first one also loads libraries
                voxels, seconds = voxels + _voxels(case), seconds + _clock() - begin
            elif not i and _voxels(case):
                found.per_voxel = (_clock() - begin) / _voxels(case)
        found.per_voxel = seconds / voxels if voxels else found.per_voxel
        return found

    @classmethod
    def _of_slides(cls, cases: Sequence[CheckedCase], before: Compose) -> _Preparation:
        found, start = cls(), time.perf_counter()
        tiles = kept = slides = read = 0
        reading = 0.0
        small = [case for case in cases if case.facts.get("coarsest", MAX_SIDE + 1) <= MAX_SIDE]
        for case in (small[i] for i in np.random.default_rng(0).permutation(len(small))):
            if time.perf_counter() - start > PREPARING:
                break
            begin = _clock()
            result = _run(before, case)
            found.per_slide += _clock() - begin
            slides, tiles = slides + 1, tiles + int(case.facts.get("tiles", 0))
            if result is None:
                continue
            bag = result["image"]
            kept += len(bag)
            begin = _clock()
            first = len(bag) // 2
            read += len(bag[first : first + TILES])
            reading += _clock() - begin
        found.per_slide /= max(slides, 1)
        found.per_tile, found.kept = reading / max(read, 1), kept / tiles if tiles else 1.0
        found.notes = [f"tissue was looked at in {slides} of {len(cases)} slides: {found.kept:.0%} of the tiles"]
        return found

    def instances(self, case: CheckedCase) -> int:
        """Return the number of instances of a case, for a slide as many as have tissue."""
        if case.facts["kind"] == "slide":
            return math.ceil(self.kept * int(case.facts.get("tiles", 0)))
        return int(case.facts.get("instances", 0))

    def seconds(self, case: CheckedCase, count: int) -> float:
        """Return the time that reading and cutting of a case takes."""
        if case.facts["kind"] == "slide":
            return self.per_slide + self.per_tile * float(count)
        return self.per_voxel * _voxels(case)


def _clock() -> float:
    """Return a time in s that stands still while this thread waits for a core that other programs have."""
    try:
        waited = int(SCHEDULE.read_text().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):  # a system that does not tell it
        waited = 0.0
    return time.perf_counter() - waited


def _run(before: Compose, case: CheckedCase) -> Mapping[str, Any] | None:
    """Return a case that is ready for the encoder, or None and a problem of the case."""
    try:
        result: Mapping[str, Any] = before({key: case.item[key] for key in (CASE, "image") if key in case.item})
    except Exception:  # whatever is wrong with a case is said when it is encoded
        case.notes.append("it could not be prepared for the encoder, see the log of the encoding")
        return None
    return result


def _encoding(steps: Sequence[Any]) -> int:
    return next((i for i, step in enumerate(steps) if isinstance(step, EncodeInstancesd)), len(steps))


def _voxels(case: CheckedCase) -> int:
    return int(np.prod(case.facts.get("shape") or (0,), dtype=np.int64))


def _no_weights() -> str:
    return "the weights of the encoder are missing, and encoding needs them: its speed was measured with random ones"


def _duration(seconds: float) -> str:
    if seconds < LONG:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 60 * LONG else f"{seconds / 3600:.1f} h"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{max(1, round(size / 1e6))} MB"
