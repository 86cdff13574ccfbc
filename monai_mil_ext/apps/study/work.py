"""Work of one run of a study: one method on one fold."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.apps.bundle.trained_model import WEIGHTS_FILE, save_model
from monai_mil_ext.data import CohortSplits, inspect_bag, item_identity, load_weights
from monai_mil_ext.data.features.fingerprints import fingerprint
from monai_mil_ext.metrics import attention_mass, instance_values
from monai_mil_ext.networks.nets import BagNet, RebinnedSurvivalNet
from monai_mil_ext.transforms import LoadBagd, PatientBagd
from monai_mil_ext.utils import BagKeys, head_mean, hide_paths, load_json, write_csv, write_json

from .methods import StudyMethod, build_study_network
from .outputs import Items, TaskOutputs
from .predictions import Predictions
from .report.set_values import set_columns
from .runs import Run
from .selection import Selection
from .tasks import Task
from .training import (
    Report,
    TrainingSettings,
    apply_settings,
    available_memory,
    feature_bytes,
    train_bag_network,
)

__all__ = ["StudyWork", "predict_bags"]

CASE, PATIENT, LABELS = str(BagKeys.CASE_ID), str(BagKeys.PATIENT), str(BagKeys.INSTANCE_LABEL)
PREDICTIONS, IDENTITY, HISTORY, STABILITY = "predictions.csv", "predictions.json", "history.csv", "stability.json"
WORTH_A_PROCESS = 16 * 2**20  # bytes of all features
PROCESS = 2 * 2**30  # bytes of memory of a process without features
TOP = 10  # share of the attention of so many instances
FORMAT = 2  # number of the form of a run's files and settings, and of what a training does with them


@dataclass(frozen=True)
class StudyWork:
    """Work of the runs of a study, each of which trains one method on one fold and predicts its other parts.

    A run does not depend on its test part: if cases are added to it, they are predicted by the network as it is.

    Args:
        items: items of all cases.
        splits: parts of all folds.
        task: task of the study.
        methods: the methods.
        training: settings of the training.
        selection: choice of the settings.
        fold_tasks: task of the training of each fold; that of the study by default.
    """

    items: Sequence[Mapping[str, Any]]
    splits: CohortSplits
    task: Task
    methods: Sequence[StudyMethod]
    training: TrainingSettings
    selection: Selection
    fold_tasks: Sequence[Task] = ()

    def runs(self) -> list[Run]:
        """Return the runs of all folds and methods; those of the first fold come first."""
        identities = {item[CASE]: _identity(item, self.task) for item in self.items}
        common = {
            "format": FORMAT,
            "training": _plain(asdict(self.training)),
            "selection": _plain(asdict(self.selection)),
        }
        return [
            Run(
                f"{method.name}/fold_{fold}",
                {
                    **common,
                    "task": _plain(asdict(self.task_of(fold))),
                    "method": _plain(asdict(method)),
                    "fold": fold,
                    **{part: fingerprint(sorted(identities[c] for c in parts[part])) for part in ("train", "val")},
                },
            )
            for fold, parts in enumerate(self.splits.folds)
            for method in self.methods
        ]

    def __call__(self, run: Run, folder: Path) -> dict[str, Any]:
        """Choose the settings, train, and predict the validation and the test part."""
        method, fold = self._of(run)
        task = self.task_of(fold)
        train, val = (self.part(fold, name) for name in ("train", "val"))
        training = replace(self.training, seed=self.training.seed + fold)

        def score(settings: Mapping[str, Any], report: Report | None = None) -> float:
            return train_bag_network(method, settings, train, val, task, training, report).loss

        settings, candidates = self.selection.choose(score, folder)
        trained = train_bag_network(method, settings, train, val, task, training)
        write_csv(folder / HISTORY, trained.history)
        write_json(folder / STABILITY, {"jsd": trained.stability})
        save_model(folder, trained.network, method.name)
        self._predict(self._in_shared_bins(trained.network, fold), fold, folder)
        return {
            "epoch": trained.epoch,
            "val_loss": trained.loss,
            "settings": _plain(settings),
            "candidates": len(candidates),
            "weights_note": trained.weights_note,
            "notes": trained.notes,
        }

    def helpful_jobs(self, num_runs: int) -> int:
        """Return the number of processes that shortens the runs on this machine: one per core if memory allows.

        One process is enough for a GPU, and for so few features that its start takes longer than it saves.
        """
        size = feature_bytes(self.items, _in_features(self.items[0]))
        if torch.cuda.is_available() or size < WORTH_A_PROCESS:
            return 1
        in_memory = available_memory() // (PROCESS + size)
        return max(1, min(num_runs, in_memory, len(os.sched_getaffinity(0))))

    def part(self, fold: int, part: str) -> list[dict[str, Any]]:
        """Return the items of a part of a fold."""
        return self.splits.select(self.items, fold, part)

    def network(self, run: Run, folder: Path, record: Mapping[str, Any]) -> BagNet:
        """Return the trained network of a finished run."""
        method, fold = self._of(run)
        method, _ = apply_settings(method, self.training, record["settings"])
        net = build_study_network(method, self.items[0], self.task_of(fold))
        net.load_state_dict(load_weights(folder / WEIGHTS_FILE))
        return self._in_shared_bins(net, fold).eval()

    def task_of(self, fold: int) -> Task:
        """Return the task of the training of a fold, whose bins of time may be its own."""
        return self.fold_tasks[fold] if self.fold_tasks else self.task

    def _in_shared_bins(self, net: BagNet, fold: int) -> BagNet:
        """Return a network of a fold that answers in the bins of time of the study."""
        own, shared = self.task_of(fold).bin_edges, self.task.bin_edges
        return net if own == shared else RebinnedSurvivalNet(net, own[:-1], shared[:-1])

    def predictions(self, run: Run, folder: Path, record: Mapping[str, Any]) -> Predictions:
        """Return the predictions of a finished run, made again if its test part has changed."""
        _, fold = self._of(run)
        known = load_json(folder / IDENTITY) if (folder / IDENTITY).exists() else {}
        if known.get("items") != self._predicted(fold):
            self._predict(self.network(run, folder, record), fold, folder)
        return Predictions.read(folder / PREDICTIONS)

    def without_names(self, text: str) -> str:
        """Remove the names of the files and folders of all items from the text of an error."""
        paths = [path for item in self.items for path in _paths(item)]
        parts = [{*Path(path).parts[1:], Path(path).stem} for path in paths]
        shared = set.intersection(*parts) if len(parts) > 1 else set()
        named = [
            path
            for path, names in zip(paths, parts, strict=True)
            if any(name in text or ascii(name)[1:-1] in text for name in names - shared)
        ]
        return hide_paths(text, named)

    def _predict(self, net: BagNet, fold: int, folder: Path) -> None:
        parts = [
            predict_bags(net, items, self.task, fold=fold, repeat=self.splits.repeats[fold], part=part)
            for part in ("val", "test")
            if (items := self.part(fold, part))
        ]
        stability = load_json(folder / STABILITY)["jsd"] if (folder / STABILITY).exists() else {}
        for rows in parts:
            if rows.part[0] == "val" and stability:
                rows.more["stability"] = np.array([stability.get(case, math.nan) for case in rows.case_id])
        Predictions.concatenate(parts).write(folder / PREDICTIONS)
        write_json(folder / IDENTITY, {"items": self._predicted(fold)})

    def _predicted(self, fold: int) -> str:
        items = [item for part in ("val", "test") for item in self.part(fold, part)]
        rows = sorted([_identity(item, self.task), str(item.get("site", ""))] for item in items)
        return fingerprint([list(map(str, self.task.bin_edges)), *rows])

    def _of(self, run: Run) -> tuple[StudyMethod, int]:
        name, _, fold = run.name.rpartition("/fold_")
        return next(method for method in self.methods if method.name == name), int(fold)


def predict_bags(
    net: BagNet, items: Items, task: Task, *, fold: int = 0, repeat: int = 0, part: str = "test"
) -> Predictions:
    """Predict whole bags one by one with a network that takes the features of the files.

    Args:
        net: network whose logits are in the unit of the labels, such as ``StandardizedNet``.
        items: items of the bags.
        task: task of the network.
        fold: fold of the rows.
        repeat: repeat of the rows.
        part: part of the rows.

    Returns:
        A row for each item, with ``entropy_ratio`` and ``top_10_share`` of the attention, and the values of
        :py:func:`monai_mil_ext.metrics.instance_values` and of sets with a guarantee where bags have instance labels.
    """
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    net = net.to(device).eval()
    load = PatientBagd("image", LoadBagd(["image", LABELS], allow_missing_keys=True))
    logits, rows = [], []
    with torch.inference_mode():
        for item in items:
            bag = load({key: item[key] for key in ("image", "start", "stop", "slide", LABELS) if key in item})
            output = net.forward_bag(bag["image"].to(device)[None], None)
            logits.append(output.logits.float().cpu())
            rows.append({} if output.attention is None else _attention_values(output.attention[0], bag.get(LABELS)))
    net.to("cpu")
    arrays = TaskOutputs(task).arrays(torch.cat(logits))
    names = dict.fromkeys(name for row in rows for name in row)
    return Predictions(
        case_id=[str(item[CASE]) for item in items],
        patient=[str(item[PATIENT]) for item in items],
        site=[str(item.get("site", "") or "") for item in items],
        repeat=np.full(len(items), repeat),
        fold=np.full(len(items), fold),
        part=[part] * len(items),
        truth=task.truth(items),
        output=arrays.output,
        survival=arrays.survival,
        times=None if arrays.survival is None else np.array([t for t in task.bin_edges if math.isfinite(t)]),
        more={name: np.array([row.get(name, math.nan) for row in rows]) for name in names},
    )


def _attention_values(attention: Tensor, labels: Any) -> dict[str, float]:
    """Return the values of the attention (N, A) of a bag."""
    a = head_mean(attention.float().cpu())
    mass = attention_mass(a, top=(TOP,), quantiles=())
    values = {"entropy_ratio": mass["entropy_ratio"], f"top_{TOP}_share": mass[f"top_{TOP}"]}
    if labels is None:
        return values
    positive = torch.as_tensor(labels).flatten()
    return {**values, **instance_values(a, positive), **set_columns(a, positive)}


def _paths(item: Mapping[str, Any]) -> list[str]:
    image = item["image"]
    return list(map(str, image)) if isinstance(image, (list, tuple)) else [str(image)]


def _in_features(item: Mapping[str, Any]) -> int:
    return int(inspect_bag(_paths(item)[0]).in_features or 0)


def _identity(item: Mapping[str, Any], task: Task) -> str:
    """Return the identity of what a training takes from an item."""
    return fingerprint([str(item[CASE]), item_identity(item), task.truth([item]).tolist()])


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: infinity as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
