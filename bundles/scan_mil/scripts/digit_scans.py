"""Scans of handwritten digits, in which nines are the lesion: ``python -m scripts.digit_scans --dataset_dir DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from monai_mil_ext.data.synthetic.digits import DIGITS_LICENSE, DigitBag, draw_digit_bags
from monai_mil_ext.utils import write_json

__all__ = ["prepare_digit_scans", "prepare_digits"]


def prepare_digits(dataset_dir: Path, num_scans: int = 8, num_slices: int = 40, seed: int = 0) -> Path:
    """Write scans that all have a lesion (a run of twelve nines), unless they exist.

    Returns:
        The cohort file.

    Raises:
        ValueError: if there are too few digits.
    """
    cohort = dataset_dir / "cohort.json"
    if not cohort.exists():
        bags = draw_digit_bags(num_scans, num_slices, 12, run=True, negatives=False, from_front=True, seed=seed)
        scans = []
        for i, bag in enumerate(bags):
            names = _write_scan(dataset_dir, f"digits_{i}", bag, ".nii.gz")
            scans.append({"case_id": f"digits_{i}", "patient": f"digits_{i}", **names})
        write_json(cohort, {"license": DIGITS_LICENSE, "scans": scans})
    return cohort


def prepare_digit_scans(dataset_dir: Path, num_scans: int = 60, seed: int = 0) -> Path:
    """Write labeled scans of 20 slices, unless they exist.

    Every other scan has a lesion (a run of five nines) and label 1. Each patient has two scans.

    Returns:
        The cohort file.

    Raises:
        ValueError: if there are too few digits.
    """
    cohort = dataset_dir / "cohort.json"
    if not cohort.exists():
        scans = []
        for i, bag in enumerate(draw_digit_bags(num_scans, 20, 5, run=True, seed=seed)):
            names = _write_scan(dataset_dir, f"scan_{i}", bag, ".nii")
            # scans 0 and 2, 1 and 3, ... share a patient, so that a patient has one label
            scans.append({"case_id": f"scan_{i}", "patient": f"patient_{i // 4}_{i % 2}", "label": bag.label, **names})
        write_json(cohort, {"license": DIGITS_LICENSE, "scans": scans})
    return cohort


def _write_scan(folder: Path, case: str, bag: DigitBag, suffix: str) -> dict[str, str]:
    """Write a volume and the mask of its lesion, and return their file names."""
    folder.mkdir(parents=True, exist_ok=True)
    # rows of an image run front to back and columns right to left: the first two axes of an LPS volume
    volume = bag.images.transpose(2, 1, 0).astype(np.float32)
    mask = np.broadcast_to(bag.instance_label, volume.shape).astype(np.uint8)
    names = {"image": f"{case}{suffix}", "reference": f"{case}_reference{suffix}"}
    for key, array in (("image", volume), ("reference", mask)):
        nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 5.0, 1.0])), folder / names[key])
    return names


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset_dir", type=Path, default=Path("data_digits"))
    print(prepare_digit_scans(parser.parse_args().dataset_dir))


if __name__ == "__main__":
    _main()
