"""Bags of handwritten digits, half of which have one nine; the shipped weights are trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from .prepare import write_cohort

__all__ = ["prepare_digits"]

SIZES = (5, 9)  # fewest and most digits of a bag


def prepare_digits(data_root: Path, num_bags: int = 220, seed: int = 0) -> Path:
    """Write bags of 5 to 9 of scikit-learn's digits, 64 grey values each; every other one has a nine, its label is 1.

    No digit is in two bags, so a bag of one fold knows nothing of another.

    Args:
        data_root: folder of all sets; this one is written to ``digits`` in it, unless it is there.
        num_bags: how many.
        seed: of the draw.

    Returns:
        the cohort table, ``cohort.csv``.

    Raises:
        ValueError: when there are not as many digits.
    """
    table = data_root / "digits" / "cohort.csv"
    if table.exists():
        return table
    digits, rng = load_digits(), np.random.default_rng(seed)
    sizes = rng.integers(SIZES[0], SIZES[1] + 1, num_bags)
    nines, others = (list(rng.permutation(np.flatnonzero(keep))) for keep in (digits.target == 9, digits.target != 9))
    if num_bags // 2 > len(nines) or sizes.sum() - num_bags // 2 > len(others):
        raise ValueError(f"`num_bags` must be at most what {len(digits.target)} digits are enough for, got {num_bags}.")
    bags = {}
    for i, size in enumerate(sizes.tolist()):
        chosen = [others.pop() for _ in range(size - i % 2)] + [nines.pop() for _ in range(i % 2)]
        bags[str(i)] = (i % 2, digits.data[rng.permutation(chosen)].astype(np.float32))
    write_cohort(bags, table)
    return table
