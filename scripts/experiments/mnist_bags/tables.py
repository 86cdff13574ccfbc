"""Tables of the protocol: all networks, and the effect of the anchor weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.workflows import RESULTS, ROOT
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.metrics import seed_summary
from monai_mil_ext.utils import RESEARCH_USE, write_json

from .methods import ANCHORS, NETWORKS, SEEDS, TRIED, Training, row_name

__all__ = ["anchor_checks", "summarize_seeds", "write_tables"]

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
    "those of the validation bags; AUROC of bags and instances are of the test. Of ABMIL's weights {choice}."
)
Values = Mapping[Training, Mapping[str, Any]]


def summarize_seeds(
    name: str, by_seed: Mapping[int, Mapping[str, float]], records: Mapping[int, Mapping[str, Any]], epochs: int
) -> dict[str, Any]:
    """Return the row of a method: mean and sd over seeds, with the cost of a training."""
    cost = {key: round(float(np.mean([r[key] for r in records.values()]))) for key in ("cpu_seconds", "wall_seconds")}
    return {"name": name, **seed_summary(by_seed), "epochs": epochs, **cost}


def anchor_checks(plain: Mapping[str, float], anchored: Mapping[str, float]) -> dict[str, bool]:
    """Check the four conditions that an anchor should meet, from means over seeds.

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


def write_tables(records: Values, tested: Values, received: Values, choice: Mapping[str, Any]) -> None:
    """Write ``mnist_bags.json`` and ``mnist_bags_anchor.json``.

    Args:
        records: record of each training, with its values on validation bags.
        tested: values on test bags.
        received: values on test bags of the attention that instances of QG-MIL receive.
        choice: weight of ABMIL's anchor from :py:func:`experiments.mnist_bags.protocol.choose_beta`.
    """

    def make_row(network: str, beta: float = 0.0, values: Values = tested, name: str = "") -> dict[str, Any]:
        by_seed = ({seed: source[Training(network, seed, beta)] for seed in SEEDS} for source in (values, records))
        row = summarize_seeds(name or row_name(network, beta), *by_seed, epochs=NETWORKS[network]["epochs"])
        return {**row, "settings_tried": TRIED[network]}

    rows = [make_row(network, beta) for network in NETWORKS for beta in (0.0, *_shown_weights(network, choice))]
    rows.append(make_row("QG-MIL", values=received, name="QG-MIL, received mass"))
    both = {t: {**_select(tested[t], TESTED), **_validation_values(records[t])} for t in tested}
    curves = {network: [make_row(network, beta, both) for beta in (0.0, *tried)] for network, tried in ANCHORS.items()}
    held = {c["name"]: anchor_checks(curve[0]["values"], c["values"]) for curve in curves.values() for c in curve[1:]}
    text = (
        f"{choice['beta']:g} is chosen on validation bags" if choice["allowed"] else "validation bags allow no weight"
    )
    seconds = {key: round(sum(r[key] for r in records.values())) for key in ("wall_seconds", "cpu_seconds")}
    common = {
        "use": RESEARCH_USE,
        **collect_provenance("scripts/reproduce mnist_bags", SEEDS, threads=1, repository=ROOT),
        **seconds,
        "columns": ["epochs", "settings_tried", "cpu_seconds"],
    }
    table = {"heads": HEADS, "note": NOTE, "rows": rows}
    write_json(RESULTS / "mnist_bags.json", {**common, **table})
    anchor_rows = [row for curve in curves.values() for row in curve]
    table = {"heads": ANCHOR_HEADS, "note": ANCHOR_NOTE.format(choice=text), "rows": anchor_rows}
    write_json(RESULTS / "mnist_bags_anchor.json", {**common, **table, "choice": dict(choice), "held": held})


def _shown_weights(network: str, choice: Mapping[str, Any]) -> Sequence[float]:
    """Return the weights of the first table: the selected weight of ABMIL, or the only weight."""
    return [choice["beta"]] if network == "ABMIL" else ANCHORS.get(network, ())


def _validation_values(record: Mapping[str, Any]) -> dict[str, float]:
    return {"val_bag_auroc": record["bag_auroc"], **_select(record, ("jsd", "entropy_ratio"))}


def _select(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    return {name: values[name] for name in names}
