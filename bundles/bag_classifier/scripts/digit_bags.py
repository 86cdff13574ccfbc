"""Bags of handwritten digits, the training data of the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai_mil_ext.data.synthetic.digits import draw_digit_bags

from .cohort_files import write_cohort

__all__ = ["prepare_digits"]


def prepare_digits(data_root: Path, num_bags: int = 220, seed: int = 0) -> Path:
    """Write bags of 5 to 9 of scikit-learn's digits with 64 gray values each, unless they exist.

    Every other bag contains one nine and has label 1. No digit is in two bags, so folds share no image.

    Args:
        data_root: folder of all data sets; this set is written to its subfolder ``digits``.
        num_bags: number of bags.
        seed: seed of the random draw.

    Returns:
        The cohort table, ``cohort.csv``.

    Raises:
        ValueError: if there are too few digits.
    """
    table = data_root / "digits" / "cohort.csv"
    if not table.exists():
        bags = draw_digit_bags(num_bags, size=(5, 9), seed=seed)
        rows = {
            str(i): (bag.label, bag.images.reshape(len(bag.images), -1).astype(np.float32))
            for i, bag in enumerate(bags)
        }
        write_cohort(rows, table)
    return table
