"""The two results of the protocol: every network, and what the weight of the anchor does."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import monai_mil_ext
from monai_mil_ext.metrics import seed_summary
from monai_mil_ext.utils import RESEARCH_USE, write_json

from .methods import ANCHORS, NETWORKS, SEEDS, TRIED, Run, anchored

__all__ = ["RESULTS", "anchor_checks", "described", "row", "write_tables"]

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results"
HEADS = {
    "instance_auroc": "instance AUROC",
    "instance_ap": "instance AP",
    "pooled_auroc": "pooled AUROC",
    "pooled_ratio_auroc": "pooled, times N",
    "positive_mass": "mass on nines",
}
ANCHOR_HEADS = {
    "instance_auroc": "instance AUROC",
    "val_bag_auroc": "validation bag AUROC",
    "jsd": "JSD",
    "entropy_ratio": "entropy ratio",
}
TESTED = ("bag_auroc", "instance_auroc")
NOTE = (
    f"Mean ± sd over {len(SEEDS)} seeds, which draw bags, weights and order (sample sd of bag values, population sd of "
    "others). 1,000 bags for training, 500 for validation, 1,000 for the test; the epoch with the best validation bag "
    "AUROC. Instance values: of one positive bag at a time, then the mean; pooled: of the instances of all positive "
    "bags together, attention as it is and times the bag's size N."
)
ANCHOR_NOTE = (
    f"Mean ± sd over {len(SEEDS)} seeds. JSD (nats, mean over epochs) and entropy ratio (at the kept epoch) are "
    "those of the validation bags; AUROC of bags and instances are of the test. Of ABMIL's weights {said}."
)
Values = Mapping[Run, Mapping[str, Any]]


def row(
    name: str, by_seed: Mapping[int, Mapping[str, float]], records: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean and sd over seeds, with what a run took."""
    took = {key: round(float(np.mean([r[key] for r in records.values()]))) for key in ("cpu_seconds", "wall_seconds")}
    return {"name": name, **seed_summary(by_seed), "epochs": records[SEEDS[0]]["settings"]["epochs"], **took}


def anchor_checks(plain: Mapping[str, float], anchored: Mapping[str, float]) -> dict[str, bool]:
    """The four things that an anchor should do at once, from means over seeds.

    Example:
        >>> plain = {"jsd": 0.2, "bag_auroc": 0.97, "entropy_ratio": 0.5, "instance_auroc": 0.97}
        >>> anchor_checks(plain, plain | {"jsd": 0.1, "bag_auroc": 0.96})
        {'lower_jsd': True, 'same_bag_auroc': False, 'entropy_below_0.99': True, 'same_instance_auroc': True}
    """
    return {
        "lower_jsd": anchored["jsd"] < plain["jsd"],
        "same_bag_auroc": abs(anchored["bag_auroc"] - plain["bag_auroc"]) <= 0.005,
        "entropy_below_0.99": anchored["entropy_ratio"] < 0.99,
        "same_instance_auroc": abs(anchored["instance_auroc"] - plain["instance_auroc"]) <= 0.02,
    }


def write_tables(records: Values, found: Values, received: Values, choice: Mapping[str, Any]) -> None:
    """Write ``mnist_bags.json`` and ``mnist_bags_anchor.json``."""

    def made(network: str, beta: float = 0.0, values: Values = found, name: str = "") -> dict[str, Any]:
        by_seed = ({seed: source[Run(network, seed, beta)] for seed in SEEDS} for source in (values, records))
        return {**row(name or anchored(network, beta), *by_seed), "settings_tried": TRIED[network]}

    rows = [made(network, beta) for network in NETWORKS for beta in (0.0, *_shown(network, choice))]
    rows.append(made("QG-MIL", values=received, name="QG-MIL, received mass"))
    both = {run: {**_part(found[run], TESTED), **_validated(records[run])} for run in found}
    curve = {network: [made(network, beta, both) for beta in (0.0, *tried)] for network, tried in ANCHORS.items()}
    held = {c["name"]: anchor_checks(own[0]["values"], c["values"]) for own in curve.values() for c in own[1:]}
    said = (
        f"{choice['beta']:g} is chosen on validation bags" if choice["allowed"] else "validation bags allow no weight"
    )
    took = {key: sum(r[key] for r in records.values()) for key in ("wall_seconds", "cpu_seconds")}
    common = {
        **described("scripts/reproduce mnist_bags"),
        **took,
        "columns": ["epochs", "settings_tried", "cpu_seconds"],
    }
    table = {"heads": HEADS, "note": NOTE, "rows": rows}
    write_json(RESULTS / "mnist_bags.json", {**common, **table})
    curves = [one for own in curve.values() for one in own]
    table = {"heads": ANCHOR_HEADS, "note": ANCHOR_NOTE.format(said=said), "rows": curves}
    write_json(RESULTS / "mnist_bags_anchor.json", {**common, **table, "choice": dict(choice), "held": held})


def _shown(network: str, choice: Mapping[str, Any]) -> Sequence[float]:
    """Weights of anchors that the first table has: the one that is chosen, or the only one."""
    return [choice["beta"]] if network == "ABMIL" else ANCHORS.get(network, ())


def _validated(record: Mapping[str, Any]) -> dict[str, float]:
    return {"val_bag_auroc": record["bag_auroc"], **_part(record, ("jsd", "entropy_ratio"))}


def _part(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    return {name: values[name] for name in names}


def described(command: str) -> dict[str, Any]:
    """What a result says of how it was made."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    names = ("monai", "torch", "numpy", "scikit-learn")
    return {
        "use": RESEARCH_USE,
        "command": command,
        "seeds": list(SEEDS),
        "commit": commit.stdout.strip(),
        "versions": {"monai-mil-ext": monai_mil_ext.__version__, **{n: version(n) for n in names}},
    }
