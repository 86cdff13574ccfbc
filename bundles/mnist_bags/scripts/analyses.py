"""Pictures and numbers of attention: ``python -m scripts.analyses mass`` and ``stability``, of any bundle's results.

``mass`` reads ``bags.csv`` and ``instances.csv`` of evaluations (``BagResultsSaver`` writes them), ``stability`` the
``attention_stability.json`` of trainings (``AttentionStabilityHandler``): ``--read NAME=FOLDER``, a line each; a name
that is given several times is a method with several seeds. Without it, both read the runs of this bundle's protocol.
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

from monai_mil_ext.metrics import mass_curve
from monai_mil_ext.utils import atomic_path, write_json
from monai_mil_ext.visualize import plot_attention_mass, plot_attention_stability

from .methods import ANCHORS, SEEDS, Run, anchored
from .tables import RESULTS, described

__all__ = ["main", "mass", "read_attention", "rows", "stability"]

ROOT = Path(__file__).resolve().parents[3]
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
    """Attention (N,) of each bag of an evaluation, by the label of the bag."""
    with (folder / "bags.csv").open(newline="") as file:
        labels = {row["case_id"]: int(row["label"]) for row in csv.DictReader(file)}
    bags: dict[str, list[float]] = {case: [] for case in labels}
    with (folder / "instances.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            bags[row["case_id"]].append(float(row["attention"]))
    found: dict[int, list[Tensor]] = {}
    for case, attention in bags.items():
        found.setdefault(labels[case], []).append(torch.tensor(attention, dtype=torch.float64))
    return dict(sorted(found.items()))


def mass(folders: Folders, longest: int = 10) -> dict[str, dict[str, Any]]:
    """Of each class of bags, of each method, the curve over all its bags of all seeds."""
    panels: dict[str, dict[str, Any]] = {}
    for name, each in folders.items():
        read = [read_attention(folder) for folder in each]
        for label in sorted({label for one in read for label in one}):
            bags = [bag for one in read for bag in one.get(label, [])]
            panels.setdefault(f"bags of class {label}", {})[name] = mass_curve(bags, longest).to_dict()
    return panels


def stability(folders: Folders) -> dict[str, dict[str, Any]]:
    """Of each method JSD and entropy ratio: means over bags and epochs, and of every epoch, over its seeds."""
    found = {}
    for name, each in folders.items():
        read = [json.loads((folder / "attention_stability.json").read_text()) for folder in each]
        shortest = min(len(one["epochs"]) for one in read)
        epochs = [
            {"epoch": read[0]["epochs"][i]["epoch"], **{k: _mean([o["epochs"][i][k] for o in read]) for k in KEYS}}
            for i in range(shortest)
        ]
        found[name] = {
            "jsd": _mean([one["jsd"] for one in read]),
            "uniformity": epochs[-1]["uniformity"],
            "epochs": epochs,
        }
    return found


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the tables of the docs show: a row a method, of masses a row a class and method."""
    if all("epochs" in one for one in found.values()):
        return [{"name": name, "values": {key: one[key] for key in KEYS}} for name, one in found.items()]
    return [
        {
            "name": f"{panel}: {name}",
            "values": {
                **{f"top_{k}": curve["mass"][k - 1] for k in TOP if k <= len(curve["mass"])},
                **curve["summary"],
            },
        }
        for panel, curves in found.items()
        for name, curve in _with_uniform(curves).items()
    ]


def _with_uniform(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    first = next(iter(curves.values()))
    return {**curves, "uniform": {"mass": first["uniform"], "summary": {}}}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def _of_protocol(kind: str, folder: Path) -> dict[str, list[Path]]:
    beta = json.loads((folder / "choice.json").read_text())["beta"]
    if kind == "stability":
        pairs = [("ABMIL", 0.0), ("ABMIL", beta), *(("ASMIL", weight) for weight in (0.0, *ANCHORS["ASMIL"]))]
        return {anchored(*pair): _folders(folder, *pair) for pair in pairs}
    return {
        "ABMIL": _folders(folder, "ABMIL", 0.0, "test"),
        "QG-MIL, pool attention": _folders(folder, "QG-MIL", 0.0, "test"),
        "QG-MIL, received mass": _folders(folder, "QG-MIL", 0.0, "received"),
        anchored("ASMIL", ANCHORS["ASMIL"][0]): _folders(folder, "ASMIL", ANCHORS["ASMIL"][0], "test"),
    }


def _folders(folder: Path, network: str, weight: float, part: str = "") -> list[Path]:
    return [folder / Run(network, seed, weight).name / part for seed in SEEDS]


def _named(words: Sequence[str]) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for word in words:
        name, sep, folder = word.partition("=")
        if not (sep and name and folder):
            raise ValueError(f"`--read` must be NAME=FOLDER, got {word!r}.")
        folders.setdefault(name, []).append(Path(folder))
    return folders


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("analysis", choices=["mass", "stability"])
    parser.add_argument("--read", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "mnist_bags", help="of the protocol's runs")
    parser.add_argument("--longest", type=int, default=10, help="of mass: the largest number of instances")
    parser.add_argument("--output", type=Path, help="folder of picture and JSON; the docs' own if not given")
    args = parser.parse_args(words)
    folders = _named(args.read) or _of_protocol(args.analysis, args.folder)
    if args.analysis == "mass":
        found, name = mass(folders, args.longest), "attention_mass"
        figure = plot_attention_mass(found)
    else:
        found, name = stability(folders), "attention_stability"
        figure = plot_attention_stability({method: one["epochs"] for method, one in found.items()})
    picture = (args.output or ROOT / "docs" / "images") / f"{name}.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=110)
    table = {"heads": HEADS[args.analysis], "note": NOTES[args.analysis], "rows": rows(found), "curves": found}
    origin = described("scripts/reproduce " + ("attention_mass" if args.analysis == "mass" else "stability"))
    write_json((args.output or RESULTS) / f"{name}.json", {**origin, "wall_seconds": 0, **table})
    print(f"wrote {picture.name} and {name}.json")


if __name__ == "__main__":
    main()
