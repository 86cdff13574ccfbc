"""What the protocol trains: one setting a network, and the weights of the anchor that validation chooses among."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["ANCHORS", "NETWORKS", "SEEDS", "TRIED", "Run", "all_runs", "anchored"]

NETS = "monai_mil_ext.networks.nets."
SEEDS = (1, 2, 3)
# Overrides of train.yaml. They were fixed on validation bags alone: of seeds 100 and 101, and where those of a seed
# below stayed at the start, of seeds 1 (QG-MIL) and 2 (ASMIL); TRIED says how many settings were looked at.
# Both begin by looking everywhere alike. What gets them away from there is few bags a batch, a low rate and a penalty
# in the gradient (Adam's, not AdamW's).
SLOW: dict[str, Any] = {"learning_rate": 0.0002, "batch_size": 4, "optimizer#_target_": "torch.optim.Adam"}
NETWORKS: dict[str, dict[str, Any]] = {
    "ABMIL": {"aggregator": {"_target_": f"{NETS}ABMIL"}, "epochs": 6},
    "QG-MIL": {"aggregator": {"_target_": f"{NETS}QGMIL", "hidden_size": 128}, "epochs": 12, **SLOW},
    "ASMIL": {"aggregator": {"_target_": f"{NETS}ASMIL", "hidden_size": 256}, "epochs": 8, **SLOW},
}
TRIED = {"ABMIL": 2, "QG-MIL": 5, "ASMIL": 13}
# weights that are tried; ASMIL has the one that it has by default
ANCHORS: dict[str, tuple[float, ...]] = {"ABMIL": (0.01, 0.03, 0.1), "ASMIL": (0.01,)}


class Run(NamedTuple):
    """One training: a network, a seed of everything that is drawn, and the weight of the anchor."""

    network: str
    seed: int
    anchor: float = 0.0

    @property
    def name(self) -> str:
        """Of the folder.

        Example:
            >>> Run("QG-MIL", 2).name, Run("ASMIL", 1, 0.01).name
            ('qg-mil_2', 'asmil_0.01_1')
        """
        weight = f"{self.anchor}_" if self.anchor else ""
        return f"{self.network.lower()}_{weight}{self.seed}"

    @property
    def overrides(self) -> dict[str, Any]:
        """Of train.yaml."""
        setting = NETWORKS[self.network]
        network = {"in_features": "@in_features", "num_classes": 2, **setting["aggregator"]}
        options = {"seed": self.seed, "anchor": self.anchor}
        return {**options, **setting, "aggregator": network}


def all_runs() -> list[Run]:
    """Every training: each network without an anchor, and with each weight of one.

    Example:
        >>> len(all_runs()), len({run.name for run in all_runs()})
        (21, 21)
    """
    rows = [(network, beta) for network in NETWORKS for beta in (0.0, *ANCHORS.get(network, ()))]
    return [Run(network, seed, anchor) for network, anchor in rows for seed in SEEDS]


def anchored(network: str, beta: float) -> str:
    """How a row of a table is called.

    Example:
        >>> anchored("ABMIL", 0.03), anchored("ABMIL", 0.0)
        ('ABMIL, anchor 0.03', 'ABMIL')
    """
    return f"{network}, anchor {beta:g}" if beta else network
