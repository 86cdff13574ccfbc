"""Writer of bag files and the table of their cohort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from monai_mil_ext.data import write_bag
from monai_mil_ext.utils import write_csv
from numpy.typing import NDArray

__all__ = ["Bags", "write_cohort"]

Bags = Mapping[str, tuple[int, NDArray[np.float32]]]  # label and features (N, F) by name


def write_cohort(bags: Bags, table: Path) -> None:
    """Write a file for each bag to the folder ``bags`` next to ``table``, and then the table.

    Each bag is a separate patient, since the data do not state which bags belong together.

    Args:
        bags: label and features (N, F) of each bag by name.
        table: path of ``cohort.csv``.
    """
    rows = []
    for number, (name, (label, features)) in enumerate(bags.items()):
        stem = f"bag_{number:04d}"
        write_bag(table.parent / "bags" / f"{stem}.h5", {"features": features}, {"source_bag": name})
        rows.append({"bag": f"bags/{stem}.h5", "patient": stem, "label": label})
    write_csv(table, rows)
