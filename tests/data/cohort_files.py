"""Cohorts for tests: bag files of known sizes and tables of them."""

import csv
import json

import numpy as np

from monai_mil_ext.data import write_bag

HEAD = ["bag", "patient", "label"]


def write_bags(folder, sizes, width=3):
    """Write an HDF5 bag of distinct features for each name."""
    for i, (name, size) in enumerate(sizes.items()):
        features = np.arange(size * width, dtype=np.float32).reshape(size, width) + 1000 * i
        write_bag(folder / f"{name}.h5", {"features": features, "coords": np.arange(2 * size).reshape(size, 2)})


def write_table(path, rows, delimiter=","):
    """Write a table whose first row holds the column names."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def texts(issues):
    """Return the lines of a report."""
    return [str(issue) for issue in issues]


def write_scans(folder, scans):
    """Write a cohort of scans as JSON."""
    (folder / "cohort.json").write_text(json.dumps({"license": "none", "scans": scans}))
    return folder / "cohort.json"
