"""Trainings of the protocol: one fixed setting per method, and the candidate settings of WindowMIL."""

from __future__ import annotations

from typing import Any, NamedTuple

from monai_mil_ext.apps.study import Run

__all__ = ["L1_TRIED", "SETTINGS", "TRIED", "VARIANTS", "WINDOW_TRIED", "Training", "cpu_trainings", "window_trainings"]

SEEDS = (1, 2, 3)  # set i has seeds i001 (training bags, network), i002 (validation), i003 (test), as published
L1_TRIED = (0.3, 0.5)
WINDOW_TRIED = 3  # 0.8 was dropped after validation on the first set: .801, and .804 for both others
# Number of settings with 1,000 training bags that were compared by validation, on sets 4001/4002 or the published sets;
# 1 for others. WindowMIL: penalty 0.3, 0.5 and 1 with 20 epochs, 0.5 with 12. Mean, ABMIL: 0, 0.1, 0.5. Max: 0.1, 0.5.
# TransMIL: 4 epochs, then 2 to save time.
TRIED = {"mean": 3, "max": 2, "ABMIL": 3, "TransMIL": 2, "WindowMIL": 4}
VARIANTS: dict[str, dict[str, Any]] = {  # arguments of ShiftedMeanDataset
    "published": {},
    "runs of 6": {"run_length": 6},
    "runs of 24": {"run_length": 24, "lengths": [24, 60]},  # a bag is at least as long as its run
    "shift 1": {"shift": 1.0},
}
NETS = "monai_mil_ext.networks.nets."
SHORT = {
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.0003,
}  # with 768 features, half a minute of one core per epoch
SETTINGS: dict[str, dict[str, Any]] = {  # overrides of train.yaml
    "mean": {"network": {"_target_": f"{NETS}MeanMIL"}},
    "max": {
        "network": {"_target_": f"{NETS}MaxMIL"},
        "l1": 0.1,
    },  # 0.5, as for the other methods, makes all weights zero
    "ABMIL": {"network": {"_target_": f"{NETS}ABMIL", "gated": False}},
    "TransMIL": {"network": {"_target_": f"{NETS}SequenceTransMIL"}, **SHORT},
    "SmAP": {"network": {"_target_": f"{NETS}SmAP"}},
    "SmTP": {"network": {"_target_": f"{NETS}SmTP"}, **SHORT},
    "QG-MIL": {"network": {"_target_": f"{NETS}QGMIL", "hidden_size": 64}, "epochs": 10},
    "ASMIL": {"network": {"_target_": f"{NETS}ASMIL", "hidden_size": 64}, "epochs": 10, "anchor": 0.01},
}


class Training(NamedTuple):
    """Training of the protocol.

    Attributes:
        name: name of the folder.
        row: name of the row in the table.
        index: number i of the published set, with seeds i001 (training bags and network), i002 (validation) and i003
            (test).
        variant: key of ``VARIANTS``.
        configs: names of the configs.
        overrides: overrides of the configs.
    """

    name: str
    row: str
    index: int
    variant: str
    configs: tuple[str, ...]
    overrides: dict[str, Any]

    @property
    def run(self) -> Run:
        """Run of the study."""
        seed = 1000 * self.index
        seeds = {"seed": seed + 1, "train_seed": seed + 1, "val_seed": seed + 2}
        return Run(self.name, {"configs": self.configs, "overrides": {**seeds, **self.overrides}})


def cpu_trainings() -> list[Training]:
    """List every method on 1,000 bags, with and without Normal Guidance if it has scores."""
    rows: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
    for method, setting in SETTINGS.items():
        plain = {"l1": 0.5, **{k: v for k, v in setting.items() if k != "network"}}
        plain |= {f"network_def#{key}": value for key, value in setting["network"].items()}
        rows.append((method, ("train",), plain))
        if method not in ("mean", "max"):
            rows.append((f"{method} + NG", ("train",), {**plain, "guidance_weight": 1.0}))
    window: dict[str, Any] = {"batch_size": 64, "epochs": 20, "l1": 0.5}
    rows += [("WindowMIL", ("train", "window_mil"), window)]
    rows += [("WindowMIL + NG", ("train", "window_mil"), {**window, "guidance_weight": 1.0})]
    return [
        Training(f"cpu_{_slug(row)}_{index}", row, index, "published", configs, {"num_train": 1000, **overrides})
        for row, configs, overrides in rows
        for index in SEEDS
    ]


def window_trainings(variant: str, l1: float) -> list[Training]:
    """List WindowMIL on 10,000 bags of each published set."""
    overrides = {"num_train": 10_000, "l1": l1, "set_options": VARIANTS[variant]}
    name = f"window_{_slug(variant)}_l1_{l1}"
    return [Training(f"{name}_{i}", variant, i, variant, ("train", "window_mil"), overrides) for i in SEEDS]


def _slug(text: str) -> str:
    return text.replace(" + ", "_").replace(" ", "_").lower()
