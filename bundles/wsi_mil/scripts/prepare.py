"""Preparation of slides of handwritten digits: ``python -m scripts.prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from monai_mil_ext.data import write_bag
from monai_mil_ext.data.synthetic.digits import DIGITS_LICENSE, draw_digit_bags
from monai_mil_ext.utils import write_csv

__all__ = ["prepare_digits"]

COLUMNS, ROWS, TILE = 4, 3, 224


def prepare_digits(dataset_dir: Path, num_slides: int = 100, seed: int = 0) -> Path:
    """Write feature files of slides whose twelve tiles are digits, unless they exist.

    A tile's features are the 64 gray values of its digit, from 0 to 1. Every other slide has three consecutive nines
    and label 1. No digit is in two slides, so folds share no image.

    Args:
        dataset_dir: folder of the table and of the folder ``features``.
        num_slides: number of slides.
        seed: seed of the random draw.

    Returns:
        The cohort table, ``cohort.csv``.

    Raises:
        ValueError: if there are too few digits.
    """
    table = dataset_dir / "cohort.csv"
    if table.exists():
        return table
    number = np.arange(COLUMNS * ROWS)
    coords = TILE * np.stack([number % COLUMNS, number // COLUMNS], axis=1)
    place = {"unit": "px", "tile_size": float(TILE), "spatial_shape": TILE * np.array([COLUMNS, ROWS])}
    rows = []
    for i, bag in enumerate(draw_digit_bags(num_slides, len(number), 3, run=True, seed=seed)):
        features = (bag.images.reshape(len(number), -1) / 16).astype(np.float32)
        arrays = {"features": features, "coords": coords, "instance_label": bag.instance_label}
        write_bag(dataset_dir / "features" / f"digits_{i:03d}.h5", arrays, {"encoder": "gray values", **place})
        rows.append({"bag": f"features/digits_{i:03d}.h5", "patient": f"digits_{i:03d}", "label": bag.label})
    write_csv(table, rows)
    return table


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset_dir", type=Path, default=Path("data"))
    print(f"{prepare_digits(parser.parse_args().dataset_dir)}: {DIGITS_LICENSE}")


if __name__ == "__main__":
    _main()
