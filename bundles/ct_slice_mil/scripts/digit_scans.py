"""Scans of handwritten digits, half of them with a lesion: ``python -m scripts.digit_scans --dataset_dir DIR``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
from sklearn.datasets import load_digits

from monai_mil_ext.utils import atomic_path

__all__ = ["prepare_digit_scans"]

LESION, SLICES = 5, 20


def prepare_digit_scans(dataset_dir: Path, num_scans: int = 60, seed: int = 0) -> Path:
    """Stacks of 8 x 8 digits; every other one has a run of five nines, which is its lesion and makes its label 1.

    Two scans are of one patient. No image is used twice. Returns the cohort file.

    Raises:
        ValueError: when there are not as many digits.
    """
    cohort = dataset_dir / "cohort.json"
    if cohort.exists():
        return cohort
    digits, rng = load_digits(), np.random.default_rng(seed)
    nines, others = (list(rng.permutation(np.flatnonzero(keep))) for keep in (digits.target == 9, digits.target != 9))
    if num_scans * SLICES > len(others) or num_scans // 2 * LESION > len(nines):
        raise ValueError(f"`num_scans` must be at most {2 * (len(nines) // LESION)}, got {num_scans}.")
    dataset_dir.mkdir(parents=True, exist_ok=True)
    scans = []
    for i in range(num_scans):
        slices = [others.pop() for _ in range(SLICES)]
        start = int(rng.integers(0, SLICES - LESION))
        lesion = np.zeros(SLICES, dtype=np.uint8)
        if i % 2:
            lesion[start : start + LESION] = 1
            slices[start : start + LESION] = [nines.pop() for _ in range(LESION)]
        scans.append(_scan(dataset_dir, i, digits.images[slices], lesion))
    with atomic_path(cohort) as temporary:
        temporary.write_text(json.dumps({"licence": "UCI optical digits, CC BY 4.0", "scans": scans}, indent=2))
    return cohort


def _scan(folder: Path, number: int, images: np.ndarray, lesion: np.ndarray) -> dict[str, object]:
    case = f"scan_{number}"
    volume = images.transpose(2, 1, 0).astype(np.float32)
    mask = np.broadcast_to(lesion, volume.shape)
    names = {"image": f"{case}.nii", "reference": f"{case}_reference.nii"}
    for key, array in (("image", volume), ("reference", mask)):
        nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 5.0, 1.0])), folder / names[key])
    # scans 0 and 2, 1 and 3, ... so that a patient has one label
    patient = f"patient_{number // 4}_{number % 2}"
    return {"case_id": case, "patient": patient, "label": int(lesion.any()), **names}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset_dir", type=Path, default=Path("data_digits"))
    print(prepare_digit_scans(parser.parse_args().dataset_dir))


if __name__ == "__main__":
    _main()
