"""Features of the scans of the benchmark: drawn, written as NIfTI, and encoded by the bundle, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.workflows import BUNDLES, make_workflow, use_scripts
from monai_mil_ext.data import Anatomy, FeatureCache, LesionOptions, PlannedScan, write_lesion_scans
from monai_mil_ext.utils import load_json, run_tasks, write_json

BUNDLE = BUNDLES / "scan_mil"
use_scripts(BUNDLE)

from scripts.encoder_weights import fetch_weights  # noqa: E402 - of the bundle
from scripts.lesion_scans import fetch_head  # noqa: E402

__all__ = ["prepare_scans", "scan_items"]

CONFIGS = ("train", "mr", "lesions")
FEATURES = "features.json"
CHUNK = 8  # scans between two steps of the progress


def prepare_scans(scans: Sequence[PlannedScan], folder: Path, options: LesionOptions, jobs: int | None = None) -> None:
    """Draw and encode scans, unless they are.

    Args:
        scans: the scans.
        folder: folder of packages, scans and features.
        options: options of the drawing.
        jobs: number of processes, each with one thread; ``None`` takes one per core.
    """
    weights = fetch_weights([folder, BUNDLE / "data"])
    for anatomy in {scan.anatomy for scan in scans}:
        fetch_head(anatomy, folder / "packages")  # once, before there are several processes
    chunks = [scans[k : k + CHUNK] for k in range(0, len(scans), CHUNK)]
    work = partial(_prepare, folder=folder, weights=weights, options=options)
    done = dict(tqdm(run_tasks(work, chunks, jobs), "scans drawn and encoded", len(chunks), unit_scale=CHUNK))
    write_json(folder / FEATURES, {"folder": done[0]})


def scan_items(scans: Sequence[PlannedScan], folder: Path) -> list[dict[str, Any]]:
    """Return the items of encoded scans, for the study; the label is that of a task with one logit."""
    features = folder / load_json(folder / FEATURES)["folder"]
    return [
        {
            "case_id": scan.case_id,
            "patient": scan.case_id,
            "image": str(features / f"{scan.case_id}.h5"),
            "label": [int(scan.num_lesions > 0)],
        }
        for scan in scans
    ]


def _prepare(scans: Sequence[PlannedScan], folder: Path, weights: str, options: LesionOptions) -> str:
    """Draw and encode some scans, and return the folder of the features, relative to that of the scans."""
    for anatomy in {scan.anatomy for scan in scans}:
        own = [scan for scan in scans if scan.anatomy == anatomy]
        write_lesion_scans(folder, _anatomy(anatomy, folder / "packages"), own, options, progress=False)
    features = _feature_cache(folder, weights)
    paths = ({key: str(folder / scan.row[key]) for key in ("image", "reference")} for scan in scans)
    features([{**scan.row, **path} for scan, path in zip(scans, paths, strict=True)])
    return str(features.folder.relative_to(folder))


@cache
def _anatomy(name: str, folder: Path) -> Anatomy:
    return fetch_head(name, folder)


@cache
def _feature_cache(folder: Path, weights: str) -> FeatureCache:
    """Return the cache of features of the bundle."""
    torch.set_num_threads(1)
    workflow = make_workflow(BUNDLE, CONFIGS, dataset_dir=str(folder), encoder_weights=weights)
    workflow.initialize()
    features: FeatureCache = workflow.parser.get_parsed_content("feature_cache")
    features.progress = False
    return features
