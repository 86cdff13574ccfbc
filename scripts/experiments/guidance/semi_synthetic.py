"""TransMIL on 1,000 bags of the semi-synthetic set, with each form of guidance, on sets that no other table uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.semi_synthetic.methods import SETTINGS, Training
from experiments.semi_synthetic.protocol import open_workflow, train
from monai_mil_ext.apps.study import StudyRunner
from monai_mil_ext.data import ShiftedMeanDataset

from .rows import bag_rows, center_rows

__all__ = ["compare_transformers", "transformer_trainings"]

SETS = (8, 9, 10)  # set i has seeds i001 (training bags, network), i002 (validation) and i003 (test)
LOSSES = {"none": None, "NG": "NormalGuidanceLoss", "kernel": "KernelGuidanceLoss"}
NUM_TEST = 300


def transformer_trainings() -> list[Training]:
    """List TransMIL with each guidance on each set, with the settings of ``scripts/reproduce semi_synthetic``."""
    setting = SETTINGS["TransMIL"]
    plain: dict[str, Any] = {"l1": 0.5, "num_train": 1000, **{k: v for k, v in setting.items() if k != "network"}}
    plain |= {f"network_def#{key}": value for key, value in setting["network"].items()}
    trainings = []
    for index in SETS:
        for name, loss in LOSSES.items():
            guide = {} if loss is None else {
                "guidance_weight": 1.0,
                "train#named_handlers#guidance#loss#_target_": f"monai_mil_ext.losses.{loss}",
            }  # fmt: skip
            trainings.append(Training(f"transmil_{name}_{index}", name, index, "published", ("train",), plain | guide))
    return trainings


def train_transformers(folder: Path) -> StudyRunner:
    """Train those that are not finished, and return their runner."""
    runner = StudyRunner(folder, train, threads=1)
    runner.run_all([training.run for training in transformer_trainings()])
    return runner


def compare_transformers(folder: Path) -> Mapping[str, Mapping[int, Sequence[dict[str, Any]]]]:
    """Train and test, and return one row for each test bag by guidance and set."""
    runner = train_transformers(folder)
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for index in SETS:
        test = ShiftedMeanDataset(NUM_TEST, 1000 * index + 3)
        bags = [test[i] for i in range(len(test))]
        rows.setdefault("center", {})[index] = center_rows(bags)
        for training in [t for t in transformer_trainings() if t.index == index]:
            workflow = open_workflow(training.run, runner.run_folder(training.run), "evaluate")
            workflow.parser["validate"]["dataset"] = ShiftedMeanDataset(1, 1)  # the run only loads the weights
            workflow.initialize()
            workflow.run()
            rows.setdefault(training.row, {})[index] = bag_rows(workflow.parser.get_parsed_content("network"), bags)
    return rows
