"""Cohorts of head scans, half of them with lesions: ``python -m scripts.lesions.cohort --dataset_dir DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_mil_ext.utils import atomic_path, write_csv, write_json

from .anatomies import ANATOMIES, LICENSES, Anatomy, fetch_anatomy
from .drawing import DrawingOptions, Scan, draw_scan

__all__ = ["PlannedScan", "plan_scans", "prepare_lesions", "write_cohort", "write_scans"]

PARTS = ("train", "train", "train", "val", "test")


@dataclass(frozen=True)
class PlannedScan:
    """Scan to draw.

    Attributes:
        anatomy: name of the head.
        seed: seed of the cohort.
        index: number of the scan in the cohort.
        num_lesions: number of its lesions.
        split: train, val or test.
    """

    anatomy: str
    seed: int
    index: int
    num_lesions: int
    split: str

    @property
    def case_id(self) -> str:
        """Name of the scan, which states all that it is drawn of."""
        return f"{self.anatomy}_{self.seed}_{self.index:03d}_{self.num_lesions}"

    @property
    def row(self) -> dict[str, Any]:
        """Row of the cohort table."""
        return {
            "case_id": self.case_id,
            "patient": self.case_id,
            "image": f"{self.case_id}.nii.gz",
            "reference": f"{self.case_id}_reference.nii.gz",
            "label": int(self.num_lesions > 0),
            "split": self.split,
        }


def plan_scans(num_scans: int, seed: int, lesions: Sequence[int] = (1,), anatomy: str = "mni152") -> list[PlannedScan]:
    """Plan scans: every other one has lesions; three of five pairs are for training, one for validation, one for test.

    Scan i of a seed shows the same head and is in the same part, whatever its lesions.

    Args:
        num_scans: number of scans.
        seed: seed of the heads and lesions.
        lesions: numbers of lesions of a positive scan, in turn.
        anatomy: name of the head.

    Example:
        >>> [(scan.num_lesions, scan.split) for scan in plan_scans(12, seed=0, lesions=(1, 2))[6:]]
        [(0, 'val'), (1, 'val'), (0, 'test'), (1, 'test'), (0, 'train'), (2, 'train')]
    """
    scans = []
    for i in range(num_scans):
        number = lesions[i // 2 // len(PARTS) % len(lesions)] if i % 2 else 0
        scans.append(PlannedScan(anatomy, seed, i, number, PARTS[i // 2 % len(PARTS)]))
    return scans


def write_scans(
    folder: Path, anatomy: Anatomy, scans: Sequence[PlannedScan], options: DrawingOptions, jobs: int | None = None
) -> None:
    """Draw scans and write each with its mask as NIfTI, unless it exists.

    Args:
        folder: folder of the files.
        anatomy: head without lesions.
        scans: the scans.
        options: options of the drawing.
        jobs: number of processes; ``None`` takes one per core.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [scan for scan in scans if not (folder / scan.row["image"]).exists()]
    jobs = min(jobs or len(sched_getaffinity(0)), max(1, len(missing) // 8))
    draw = partial(_write, folder=folder, anatomy=anatomy, options=options)
    if jobs == 1:
        for scan in missing:
            draw(scan)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        list(pool.map(draw, missing, chunksize=max(1, len(missing) // (4 * jobs))))


def _write(scan: PlannedScan, folder: Path, anatomy: Anatomy, options: DrawingOptions) -> None:
    drawn = draw_scan(anatomy, (scan.seed, scan.index), scan.num_lesions, options)
    _save(drawn, drawn.mask, folder / scan.row["reference"])
    _save(drawn, drawn.image, folder / scan.row["image"])  # last: it tells that both are there


def _save(scan: Scan, voxels: np.ndarray, path: Path) -> None:
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(voxels, np.diag([*scan.spacing, 1.0])), temporary)


def prepare_lesions(dataset_dir: Path, num_scans: int = 260, seed: int = 0) -> Path:
    """Write scans of the MNI152 head, half of them with one lesion, unless they exist.

    Returns:
        The cohort file.

    Raises:
        RuntimeError: if the package with the head can't be fetched.
    """
    return write_cohort(dataset_dir, plan_scans(num_scans, seed), DrawingOptions())


def write_cohort(folder: Path, scans: Sequence[PlannedScan], options: DrawingOptions) -> Path:
    """Write scans of one head, and their tables, unless they exist.

    Returns:
        The cohort file.

    Raises:
        ValueError: if the folder has scans that were drawn with other options.
    """
    cohort, drawing = folder / "cohort.json", json.loads(json.dumps(asdict(options)))
    if not cohort.exists():
        anatomy = scans[0].anatomy
        write_scans(folder, fetch_anatomy(anatomy, folder / "packages"), scans, options)
        rows = [scan.row for scan in scans]
        write_csv(folder / "cohort.csv", rows)
        write_json(cohort, {"license": LICENSES[anatomy], "drawing": drawing, "scans": rows})
    elif json.loads(cohort.read_text())["drawing"] != drawing:
        raise ValueError(f"`folder` must hold scans of the same drawing, got others: remove {folder.name}.")
    return cohort


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset_dir", type=Path, default=Path("data_lesions"))
    parser.add_argument("--num_scans", type=int, default=260)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lesions", type=int, nargs="+", default=[1], help="numbers of lesions of a positive scan")
    parser.add_argument("--anatomy", choices=list(ANATOMIES), default="mni152")
    args = parser.parse_args()
    scans = plan_scans(args.num_scans, args.seed, args.lesions, args.anatomy)
    print(write_cohort(args.dataset_dir, scans, DrawingOptions()).name)


if __name__ == "__main__":
    _main()
