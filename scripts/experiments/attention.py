"""Figures and values of attention, from the results of any bundle: ``scripts/reproduce attention_mass|stability``.

``attention_mass`` reads ``bags.csv`` and ``instances.csv`` of evaluations, written by ``BagResultsSaver``;
``stability`` reads ``attention_stability.json`` of trainings, written by ``AttentionStabilityHandler``. Pass
``--read NAME=FOLDER`` for each; a repeated name is a method with several seeds. By default, both read the runs of
MNIST-bags.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.metrics import mass_curve
from monai_mil_ext.utils import RESEARCH_USE, atomic_path, write_json
from monai_mil_ext.visualize import plot_attention_mass, plot_attention_stability

from .mnist_bags.methods import ANCHORS, SEEDS, Training, row_name
from .mnist_bags.protocol import FOLDER
from .workflows import RESULTS, ROOT

__all__ = ["main", "mean_stability", "read_attention", "read_masses", "table_rows"]

KEYS = ("jsd", "uniformity")
TOP = (1, 3, 5)
HEADS = {
    "mass": {
        **{f"top_{k}": f"top {k}" for k in TOP},
        "effective_number": "effective number",
        "entropy_ratio": "entropy ratio",
        "gini": "Gini",
    },
    "stability": {"jsd": "JSD", "uniformity": "entropy ratio, last epoch"},
}
NOTES = {
    "mass": "Means over all bags of a class, of all seeds; top k is the share of the attention that k instances hold.",
    "stability": "Means over bags, epochs and seeds; JSD in nats, from the epoch before.",
}
Folders = Mapping[str, Sequence[Path]]


def read_attention(folder: Path) -> dict[int, list[Tensor]]:
    """Read the attention (N,) of each bag of an evaluation, by the label of the bag."""
    with (folder / "bags.csv").open(newline="") as file:
        labels = {row["case_id"]: int(row["label"]) for row in csv.DictReader(file)}
    bags: dict[str, list[float]] = {case: [] for case in labels}
    with (folder / "instances.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            bags[row["case_id"]].append(float(row["attention"]))
    by_label: dict[int, list[Tensor]] = {}
    for case, attention in bags.items():
        by_label.setdefault(labels[case], []).append(torch.tensor(attention, dtype=torch.float64))
    return dict(sorted(by_label.items()))


def read_masses(folders: Folders, longest: int = 10) -> dict[str, dict[str, Any]]:
    """Compute the mass curve of each bag class and method, over all bags of all seeds."""
    panels: dict[str, dict[str, Any]] = {}
    for name, of_method in folders.items():
        by_label = [read_attention(folder) for folder in of_method]
        for label in sorted({label for bags in by_label for label in bags}):
            bags = [bag for of_seed in by_label for bag in of_seed.get(label, [])]
            panels.setdefault(f"bags of class {label}", {})[name] = mass_curve(bags, longest).to_dict()
    return panels


def mean_stability(folders: Folders) -> dict[str, dict[str, Any]]:
    """Average JSD and entropy ratio of each method over bags, epochs and seeds, and at every epoch over seeds."""
    result = {}
    for name, of_method in folders.items():
        reports = [json.loads((folder / "attention_stability.json").read_text()) for folder in of_method]
        shortest = min(len(report["epochs"]) for report in reports)
        epochs = [
            {
                "epoch": reports[0]["epochs"][i]["epoch"],
                **{key: _mean([report["epochs"][i][key] for report in reports]) for key in KEYS},
            }
            for i in range(shortest)
        ]
        jsd = _mean([report["jsd"] for report in reports])
        result[name] = {"jsd": jsd, "uniformity": epochs[-1]["uniformity"], "epochs": epochs}
    return result


def table_rows(curves: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the table: one per method, for masses one per class and method."""
    if all("epochs" in curve for curve in curves.values()):
        return [{"name": name, "values": {key: curve[key] for key in KEYS}} for name, curve in curves.items()]
    return [
        {
            "name": f"{panel}: {name}",
            "values": {
                **{f"top_{k}": curve["mass"][k - 1] for k in TOP if k <= len(curve["mass"])},
                **curve["summary"],
            },
        }
        for panel, of_panel in curves.items()
        for name, curve in _with_uniform(of_panel).items()
    ]


def _with_uniform(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    first = next(iter(curves.values()))
    return {**curves, "uniform": {"mass": first["uniform"], "summary": {}}}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def _protocol_folders(analysis: str, folder: Path) -> dict[str, list[Path]]:
    beta = json.loads((folder / "choice.json").read_text())["beta"]
    if analysis == "stability":
        pairs = [("ABMIL", 0.0), ("ABMIL", beta), *(("ASMIL", weight) for weight in (0.0, *ANCHORS["ASMIL"]))]
        return {row_name(*pair): _folders(folder, *pair) for pair in pairs}
    return {
        "ABMIL": _folders(folder, "ABMIL", 0.0, "test"),
        "QG-MIL, pool attention": _folders(folder, "QG-MIL", 0.0, "test"),
        "QG-MIL, received mass": _folders(folder, "QG-MIL", 0.0, "received"),
        row_name("ASMIL", ANCHORS["ASMIL"][0]): _folders(folder, "ASMIL", ANCHORS["ASMIL"][0], "test"),
    }


def _folders(folder: Path, network: str, weight: float, part: str = "") -> list[Path]:
    return [folder / Training(network, seed, weight).name / part for seed in SEEDS]


def _parse_folders(words: Sequence[str]) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for word in words:
        name, sep, folder = word.partition("=")
        if not (sep and name and folder):
            raise ValueError(f"`--read` must be NAME=FOLDER, got {word!r}.")
        folders.setdefault(name, []).append(Path(folder))
    return folders


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("analysis", choices=["mass", "stability"])
    parser.add_argument("--read", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the protocol's runs")
    parser.add_argument("--longest", type=int, default=10, help="largest number of instances of a mass curve")
    parser.add_argument("--output", type=Path, help="folder of picture and JSON; by default those of docs")
    args = parser.parse_args(words)
    folders = _parse_folders(args.read) or _protocol_folders(args.analysis, args.folder)
    if args.analysis == "mass":
        command, name = "attention_mass", "attention_mass"
        curves = read_masses(folders, args.longest)
        figure = plot_attention_mass(curves)
    else:
        command, name = "stability", "attention_stability"
        curves = mean_stability(folders)
        figure = plot_attention_stability({method: curve["epochs"] for method, curve in curves.items()})
    picture = (args.output or ROOT / "docs" / "images") / f"{name}.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=110)
    provenance = collect_provenance(f"scripts/reproduce {command}", SEEDS, seconds=0, repository=ROOT)
    table = {"heads": HEADS[args.analysis], "note": NOTES[args.analysis], "rows": table_rows(curves), "curves": curves}
    write_json((args.output or RESULTS) / f"{name}.json", {"use": RESEARCH_USE, **provenance, **table})
    print(f"wrote {picture.name} and {name}.json")
