"""Preparation of a cohort from an RSNA competition: ``python -m scripts.rsna head|chest|abdomen --source DIR``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from monai_mil_ext.data import CohortReport
from monai_mil_ext.utils import atomic_path, write_csv

from .rsna_tables import READERS

__all__ = ["prepare_rsna"]

LICENSE = "RSNA competition data: the terms of the competition's own page hold; non-commercial and academic use."


def prepare_rsna(kind: str, source: Path, dataset_dir: Path) -> CohortReport:
    """Write ``cohort.json``, ``cohort.csv``, a table of slices for every scan, and ``report.json``.

    ``slices/<case>.csv`` lists the files of a scan in order, with ``place`` (their position along the scan) and
    ``instance_label``; the bundle trains on ``cohort.json``; ``cohort.csv`` is for ``load_cohort``, with the folder of
    the feature files as ``root``. File names are relative to ``source``, whose path is not stored.

    Args:
        kind: ``"head"`` (2019), ``"chest"`` (2020) or ``"abdomen"`` (2023).
        source: folder of the unpacked files of the competition.
        dataset_dir: folder of the written files.

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if a table lacks a column, labels are contradictory, or no scan is left; ``report.json`` lists all
            reasons.
    """
    report = READERS[kind](source)
    report.write(dataset_dir / "report.json")
    report.raise_if_errors()
    scans, rows = [], []
    for item in sorted(report.items, key=lambda scan: str(scan["case_id"])):
        case, labels = item["case_id"], [row.label for row in item["slices"]]
        columns = ("file", "place", "instance_label")
        slices = [dict(zip(columns, row, strict=True)) for row in item["slices"]]
        write_csv(dataset_dir / "slices" / f"{case}.csv", slices)
        labeled = {"patient": item["patient"], "label": item["label"]}
        scans.append({"case_id": case, **labeled, "image": f"slices/{case}.csv"})
        rows.append({"bag": case, **labeled, "num_slices": len(labels), "num_positive": sum(labels)})
    write_csv(dataset_dir / "cohort.csv", rows)
    with atomic_path(dataset_dir / "cohort.json") as temporary:
        temporary.write_text(json.dumps({"license": LICENSE, "scans": scans}, indent=1))
    return report


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(READERS))
    parser.add_argument("--source", type=Path, required=True, help="folder of the competition's files")
    parser.add_argument("--dataset_dir", type=Path, default=Path("data"))
    args = parser.parse_args()
    print(prepare_rsna(args.kind, args.source, args.dataset_dir))


if __name__ == "__main__":
    _main()
