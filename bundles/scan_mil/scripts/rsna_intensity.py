"""Mean and standard deviation of training scans: ``python -m scripts.rsna_intensity --source DIR --seed 1001``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from monai_mil_ext.data import load_cohort, split_cohort
from monai_mil_ext.utils import write_json
from tqdm import tqdm

from .slice_table import LoadSliceTabled

__all__ = ["measure_intensity", "read_intensity"]


def measure_intensity(
    source: Path, dataset_dir: Path, seed: int, spatial_size: int = 224, hu_window: Sequence[float] | None = None
) -> tuple[float, float]:
    """Measure mean and sd of the voxels that the encoder gets, per training scan, averaged over training scans.

    The training scans are those of ``protocol.yaml`` with this seed; other scans are not used. The result is written to
    ``intensity_<seed>.json``.
    """
    scans = load_cohort(dataset_dir / "cohort.json")
    training = split_cohort(scans, num_folds=6, val_fraction=0.2, seed=seed).select(scans, 0, "train")
    load = LoadSliceTabled("image", str(source), spatial_size, hu_window)
    values = []
    for scan in tqdm(training, desc="training scans", disable=None):
        bag = load({"image": scan["image"]})["image"].double()
        values.append((float(bag.mean()), float(bag.std(correction=0))))
    mean, std = (sum(column) / len(column) for column in zip(*values, strict=True))
    record = {"mean": mean, "std": std, "num_scans": len(values), "hu_window": hu_window, "spatial_size": spatial_size}
    write_json(dataset_dir / f"intensity_{seed}.json", record)
    return mean, std


def read_intensity(dataset_dir: str, seed: int, spatial_size: int, hu_window: Sequence[float] | None) -> list[float]:
    """Read the mean and sd that :py:func:`measure_intensity` wrote.

    Raises:
        FileNotFoundError: if there is no measurement for this seed.
        ValueError: if it was measured with other options of the slices.
    """
    path = Path(dataset_dir) / f"intensity_{seed}.json"
    if not path.exists():
        raise FileNotFoundError(f"`seed` must be one that scripts.rsna_intensity was run with, got {seed}.")
    record = json.loads(path.read_text())
    expected = {"spatial_size": spatial_size, "hu_window": None if hu_window is None else list(hu_window)}
    if {key: record[key] for key in expected} != expected:
        raise ValueError(f"`intensity` must be measured on slices made with {expected}, got {path.name} of others.")
    return [record["mean"], record["std"]]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--dataset_dir", type=Path, default=Path("data"))
    parser.add_argument("--seed", type=int, default=1001)
    parser.add_argument("--hu_window", type=float, nargs=2, help="-100 300 for head; none for the others")
    args = parser.parse_args()
    print(*measure_intensity(args.source, args.dataset_dir, args.seed, hu_window=args.hu_window))


if __name__ == "__main__":
    _main()
