"""Trainings of the protocol: one setting per network, and the candidate weights of the anchor."""

from __future__ import annotations

from typing import Any, NamedTuple

from monai_mil_ext.apps.study import Run

__all__ = ["ANCHORS", "NETWORKS", "SEEDS", "TRIED", "Training", "all_trainings", "row_name"]

NETS = "monai_mil_ext.networks.nets."
SEEDS = (1, 2, 3)
# Overrides of train.yaml. They were tuned on validation bags only: on seeds 100 and 101 and, where training with a seed
# below did not leave its initial state, on seeds 1 (QG-MIL) and 2 (ASMIL). TRIED is the number of compared settings.
# Both networks start with uniform attention. Small batches, a low learning rate and weight decay in the gradient (Adam
# instead of AdamW) help them leave it.
SLOW: dict[str, Any] = {"learning_rate": 0.0002, "batch_size": 4, "optimizer#_target_": "torch.optim.Adam"}
NETWORKS: dict[str, dict[str, Any]] = {
    "ABMIL": {"aggregator": {"_target_": f"{NETS}ABMIL"}, "epochs": 6},
    "QG-MIL": {"aggregator": {"_target_": f"{NETS}QGMIL", "hidden_size": 128}, "epochs": 12, **SLOW},
    "ASMIL": {"aggregator": {"_target_": f"{NETS}ASMIL", "hidden_size": 256}, "epochs": 8, **SLOW},
}
TRIED = {"ABMIL": 2, "QG-MIL": 5, "ASMIL": 13}
# candidate weights; for ASMIL only its default
ANCHORS: dict[str, tuple[float, ...]] = {"ABMIL": (0.01, 0.03, 0.1), "ASMIL": (0.01,)}


class Training(NamedTuple):
    """Training of the protocol.

    Attributes:
        network: key of ``NETWORKS``.
        seed: seed of the bags, the weights and the order of bags.
        anchor: weight of the anchor.
    """

    network: str
    seed: int
    anchor: float = 0.0

    @property
    def name(self) -> str:
        """Name of the folder.

        Example:
            >>> Training("QG-MIL", 2).name, Training("ASMIL", 1, 0.01).name
            ('qg-mil_2', 'asmil_0.01_1')
        """
        weight = f"{self.anchor}_" if self.anchor else ""
        return f"{self.network.lower()}_{weight}{self.seed}"

    @property
    def overrides(self) -> dict[str, Any]:
        """Overrides of train.yaml."""
        setting = NETWORKS[self.network]
        network = {"in_features": "@in_features", "num_classes": 2, **setting["aggregator"]}
        return {"seed": self.seed, "anchor": self.anchor, **setting, "aggregator": network}

    def run(self, **overrides: Any) -> Run:
        """Return the run of the study; ``overrides`` take precedence over those of the method."""
        return Run(self.name, {**self.overrides, **overrides})


def all_trainings() -> list[Training]:
    """List each network without an anchor and with each candidate weight.

    Example:
        >>> len(all_trainings()), len({training.name for training in all_trainings()})
        (21, 21)
    """
    rows = [(network, beta) for network in NETWORKS for beta in (0.0, *ANCHORS.get(network, ()))]
    return [Training(network, seed, anchor) for network, anchor in rows for seed in SEEDS]


def row_name(network: str, beta: float) -> str:
    """Return the name of a row of a table.

    Example:
        >>> row_name("ABMIL", 0.03), row_name("ABMIL", 0.0)
        ('ABMIL, anchor 0.03', 'ABMIL')
    """
    return f"{network}, anchor {beta:g}" if beta else network
