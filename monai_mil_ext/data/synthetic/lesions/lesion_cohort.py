"""Cohorts of drawn scans, half of them with lesions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import (
    atomic_path,
    check_positive,
    load_json,
    optional_dependency,
    run_tasks,
    write_csv,
    write_json,
)

from .anatomy import Anatomy
from .lesion_options import LesionOptions
from .lesion_scan import LesionScan, draw_lesion_scan

__all__ = ["PlannedScan", "plan_lesion_scans", "write_lesion_cohort", "write_lesion_scans"]

nib = optional_dependency("", "nibabel")
tqdm = optional_dependency("", "tqdm", "tqdm")

PARTS = ("train", "train", "train", "val", "test")
SCANS_PER_PROCESS = 8  # fewer are drawn before another process has started


@dataclass(frozen=True)
class PlannedScan:
    """Scan to draw.

    Attributes:
        anatomy: name of the anatomy.
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


def plan_lesion_scans(
    num_scans: int, seed: int, num_lesions: Sequence[int] = (1,), anatomy: str = "mni152"
) -> list[PlannedScan]:
    """Plan scans: every other one has lesions; three of five pairs are for training, one for validation, one for test.

    Scan i of a seed shows the same head and is in the same part, whatever its lesions.

    Args:
        num_scans: number of scans.
        seed: seed of the heads and lesions.
        num_lesions: numbers of lesions of a positive scan, in turn.
        anatomy: name of the anatomy, the first part of the names of the files.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> scans = plan_lesion_scans(12, seed=0, num_lesions=(1, 2))
        >>> [(scan.num_lesions, scan.split) for scan in scans[6:]]
        [(0, 'val'), (1, 'val'), (0, 'test'), (1, 'test'), (0, 'train'), (2, 'train')]
        >>> scans[7].case_id
        'mni152_0_007_1'
    """
    check_positive(num_scans=num_scans, num_lesions=min(num_lesions, default=0))
    scans = []
    for i in range(num_scans):
        number = num_lesions[i // 2 // len(PARTS) % len(num_lesions)] if i % 2 else 0
        scans.append(PlannedScan(anatomy, seed, i, number, PARTS[i // 2 % len(PARTS)]))
    return scans


def write_lesion_scans(
    folder: str | os.PathLike[str],
    anatomy: Anatomy,
    scans: Sequence[PlannedScan],
    options: LesionOptions | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> None:
    """Draw scans and write each with its mask as NIfTI, unless it exists.

    Args:
        folder: folder of the files.
        anatomy: anatomy without lesions.
        scans: the scans.
        options: options of the drawing; ``None`` takes the defaults.
        jobs: number of processes; more than one need a script whose work is under ``if __name__ == "__main__"``.
        progress: whether a bar shows the progress.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [scan for scan in scans if not (folder / scan.row["image"]).exists()]
    draw = partial(_write, folder=folder, anatomy=anatomy, options=options)
    bar = partial(tqdm, desc="scans drawn", total=len(missing), disable=not (progress and missing))
    jobs = min(jobs, max(1, len(missing) // SCANS_PER_PROCESS))
    list(bar(run_tasks(draw, missing, jobs)))


def _write(scan: PlannedScan, folder: Path, anatomy: Anatomy, options: LesionOptions | None) -> None:
    drawn = draw_lesion_scan(anatomy, (scan.seed, scan.index), scan.num_lesions, options)
    _save(drawn, drawn.mask, folder / scan.row["reference"])
    _save(drawn, drawn.image, folder / scan.row["image"])  # last: it tells that both are there


def _save(scan: LesionScan, voxels: NDArray[Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(voxels, np.diag([*scan.spacing, 1.0])), temporary)


def write_lesion_cohort(
    folder: str | os.PathLike[str],
    anatomy: Anatomy,
    scans: Sequence[PlannedScan],
    options: LesionOptions | None = None,
    license_text: str = "",
    jobs: int = 1,
) -> Path:
    """Write scans of one anatomy, and the tables ``cohort.json`` and ``cohort.csv``, unless they exist.

    The tables have the columns of a cohort (case_id, patient, image, reference, label, split), so that check, study,
    training and evaluation of ``scan_mil`` take the folder as any other.

    Args:
        folder: folder of the files.
        anatomy: anatomy without lesions.
        scans: the scans, of :py:func:`plan_lesion_scans`.
        options: options of the drawing; ``None`` takes the defaults.
        license_text: license of the anatomy, for ``cohort.json``.
        jobs: number of processes, as in :py:func:`write_lesion_scans`.

    Returns:
        Path of ``cohort.json``.

    Raises:
        ValueError: if the folder has a cohort of other scans, or drawn with other options.

    Example:
        >>> x, y, z = np.ogrid[-1.1:1.1:140j, -1.1:1.1:170j, -1.1:1.1:130j]
        >>> ball = x**2 + y**2 + z**2 < 1
        >>> scans = plan_lesion_scans(4, seed=0, anatomy="ball")
        >>> options = LesionOptions(size=32, pixel_mm=6.0)
        >>> write_lesion_cohort("lesions", Anatomy(ball.astype(np.float32), ball), scans, options).name
        'cohort.json'
        >>> print(Path("lesions/cohort.csv").read_text().splitlines()[2])
        ball_0_001_1,ball_0_001_1,ball_0_001_1.nii.gz,ball_0_001_1_reference.nii.gz,1,train
    """
    folder, cohort = Path(folder), Path(folder) / "cohort.json"
    rows = [scan.row for scan in scans]
    drawing = json.loads(json.dumps(asdict(options or LesionOptions())))
    if cohort.exists():
        found = load_json(cohort)
        if found["drawing"] != drawing or found["scans"] != rows:
            raise ValueError(f"`folder` must hold these scans or none, got others: remove {folder.name}.")
        return cohort
    write_lesion_scans(folder, anatomy, scans, options, jobs)
    write_csv(folder / "cohort.csv", rows)
    write_json(cohort, {"license": license_text, "drawing": drawing, "scans": rows})
    return cohort
