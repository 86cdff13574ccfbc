"""Models of the protocol of the classical data sets, and their candidate settings."""

from __future__ import annotations

from itertools import product
from typing import Any

__all__ = ["MODELS", "REGRESSIONS", "SETTINGS"]

NETS = "monai_mil_ext.networks.nets."
SETTINGS = ({"learning_rate": 0.001, "epochs": 20}, {"learning_rate": 0.003, "epochs": 20})
# overrides of train.yaml, with two settings each: the selection among all six networks has twelve candidates
MODELS: dict[str, dict[str, Any]] = {
    "mean": {"network_def": {"_target_": f"{NETS}MeanMIL"}},
    "ABMIL": {"network_def": {"_target_": f"{NETS}ABMIL", "hidden_size": 64, "attention_size": 64, "dropout": 0.25}},
    "TransMIL": {"network_def": {"_target_": f"{NETS}TransMIL", "hidden_size": 64, "num_landmarks": 16}},
    "QG-MIL": {
        "network_def": {
            "_target_": f"{NETS}QGMIL",
            "hidden_size": 64,
            "block": {"_target_": f"{NETS}QGMILBlock", "num_heads": 4},
        }
    },
    "ASMIL": {"network_def": {"_target_": f"{NETS}ASMIL", "hidden_size": 64}, "anchor": 0.01},
    "ACMIL": {"network_def": {"_target_": f"{NETS}ACMIL", "hidden_size": 64, "attention_size": 64}, "branches": 1.0},
}
REGRESSIONS: dict[str, list[dict[str, Any]]] = {
    "pooled regression": [
        {"pools": pools, "C": c} for pools, c in product((["mean"], ["max"], ["mean", "max"]), (0.001, 0.01, 0.1, 1.0))
    ],
    "pooled regression, one setting": [{"pools": ["min", "mean", "max"], "C": 1.0}],
}
