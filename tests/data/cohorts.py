"""Cohorts for tests: bag files of known sizes, and a table of them."""

import csv

import numpy as np

from monai_mil_ext.data import write_bag


def write_bags(folder, sizes, width=3):
    """One HDF5 bag for each name, its features all different."""
    for i, (name, size) in enumerate(sizes.items()):
        features = np.arange(size * width, dtype=np.float32).reshape(size, width) + 1000 * i
        write_bag(folder / f"{name}.h5", {"features": features, "coords": np.arange(2 * size).reshape(size, 2)})


def write_table(path, rows, delimiter=","):
    """A table of the rows, the first of which names the columns."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path
