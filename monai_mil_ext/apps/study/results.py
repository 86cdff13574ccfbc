"""Results of a finished study: predictions, clinical variables, models and the report."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_mil_ext.data import summarize_cohort
from monai_mil_ext.networks.nets import BagNet
from monai_mil_ext.utils import BagKeys, write_json
from monai_mil_ext.utils.files import remove_file

from .clinical import effect_table, fit_fold
from .models import write_study_model
from .predictions import Predictions
from .report.cohort_report import CohortResults, write_cohort_report
from .report.cohort_values import bag_sources, label_counts
from .report.decisions import choose_threshold
from .runs import Run, StudyRunner, write_line
from .tasks import Task
from .tracking import log_report
from .training import apply_settings, train_bag_network
from .work import HISTORY

if TYPE_CHECKING:
    from .study import Study

__all__ = ["StudyResults", "operating_threshold"]

PATIENT = str(BagKeys.PATIENT)
CHECKED, CLINICAL = "checked.json", "clinical.json"
Items = Sequence[Mapping[str, Any]]


class StudyResults:
    """Results of the finished runs of a study.

    Args:
        study: the study.
        runner: runner of its runs.
        failures: reasons of the runs that failed, by name.
    """

    def __init__(self, study: Study, runner: StudyRunner, failures: Mapping[str, str]) -> None:
        self.study, self.runner, self.failures = study, runner, dict(failures)
        self.work, self.folder = study.work, study.folder
        self.notes: list[str] = []
        records = [(run, runner.read(run)) for run in self.work.runs()]
        self.finished: list[tuple[Run, dict[str, Any]]] = [
            (run, record) for run, record in records if record is not None
        ]

    def write(self) -> Path:
        """Write everything, and return the path of the report."""
        study, task = self.study, self.work.task
        study.times |= {f"training of {method.name}": self._seconds(method.name) for method in self.work.methods}
        with study.timed("predictions"):
            bags = self._predictions()
            clinical = self._clinical(bags)
        with study.timed("models"):
            for method, predictions in bags.items():
                self._write_model(method, predictions)
            self._remove_stale(bags, clinical)
        with study.timed("report"):
            cohort = CohortResults(task, self.work.items, bags, clinical, left_out=study.left_out)
            cohort.notes = self._all_notes()
            effects = self._effects(bags) if clinical else []
            cohort.facts = {"methods": self._methods(), "histories": self._histories(), "folds": self._folds()}
            path = write_cohort_report(study, cohort, self.folder, effects, self._network_of)
        if study.options.tracking_uri:
            log_report(study.options.tracking_uri, study.options.title, self.folder)
        write_line(f"The report is {path.name} in the folder of the study.")
        write_line("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in study.times.items()) + ".")
        return path

    def _runs_of(self, method: str) -> list[tuple[Run, dict[str, Any]]]:
        return [(run, record) for run, record in self.finished if run.name.startswith(f"{method}/fold_")]

    def _seconds(self, method: str) -> float:
        """Return the time of all runs of a method, also of those of an earlier call."""
        return sum(float(record.get("wall_seconds") or 0) for _, record in self._runs_of(method))

    def _predictions(self) -> dict[str, Predictions]:
        found = {}
        for method in self.work.methods:
            parts = [self._of_run(run, record) for run, record in self._runs_of(method.name)]
            if parts:
                found[method.name] = Predictions.concatenate(parts)
                found[method.name].write(self.folder / "predictions" / f"{method.name}.csv")
        return found

    def _of_run(self, run: Run, record: Mapping[str, Any]) -> Predictions:
        return self.work.predictions(run, self.runner.run_folder(run), record)

    def _clinical(self, bags: Mapping[str, Predictions]) -> dict[str, dict[str, Predictions]]:
        clinical = self.study.clinical
        if clinical is None:
            return {}
        found = {}
        for method, predictions in bags.items():
            parts: dict[str, list[Predictions]] = {"clinical": [], "both": []}
            values: dict[str, Any] = {}
            for fold in np.unique(predictions.fold):
                train, val, test = (self.work.part(int(fold), part) for part in ("train", "val", "test"))
                rows = predictions.select(predictions.fold == fold)
                fitted = fit_fold(clinical, train, val, test, self.work.task, rows)
                values[str(fold)] = fitted.values
                self.notes += fitted.notes
                for name, part in parts.items():
                    part.append(fitted.predictions[name])
            found[method] = {name: Predictions.concatenate(part) for name, part in parts.items()}
            for name, joined in found[method].items():
                joined.write(self.folder / "predictions" / f"{method} {name}.csv")
            write_json(self.folder / "models" / method / CLINICAL, values)
        return found

    def _remove_stale(self, bags: Mapping[str, Predictions], clinical: Mapping[str, Any]) -> None:
        """Remove predictions and models of an earlier call that the report does not cover; their runs are kept."""
        current = {*bags, *(f"{method} {name}" for method, parts in clinical.items() for name in parts)}
        for path in (self.folder / "predictions").glob("*.csv"):
            if path.stem not in current:
                remove_file(path)
        for folder in (path for path in (self.folder / "models").iterdir() if path.is_dir()):
            if folder.name not in bags:
                shutil.rmtree(folder)
            elif folder.name not in clinical:
                remove_file(folder / CLINICAL)

    def _effects(self, bags: Mapping[str, Predictions]) -> list[dict[str, Any]]:
        """Return the effects of the clinical variables beside the first method."""
        clinical, bag = self.study.clinical, next(iter(bags.values()))
        if clinical is None:
            return []
        return effect_table(self.work.items, self.work.task, bag, clinical.columns, clinical.kinds)

    def _write_model(self, method: str, predictions: Predictions) -> None:
        nets = self._refitted(method) if self.study.options.refit else self._networks(method)
        write_study_model(
            self.folder / "models" / method,
            nets,
            self.work.task,
            method,
            threshold=operating_threshold(predictions, self.work.task),
            threshold_method="Youden's index of out-of-fold predictions",
            sources=bag_sources(self.work.items),
            cohort=summarize_cohort(self.work.items, seed=self.study.plan.seed),
            level="patient" if any(isinstance(item["image"], (list, tuple)) for item in self.work.items) else "bag",
        )

    def _networks(self, method: str) -> list[BagNet]:
        return [self.work.network(run, self.runner.run_folder(run), record) for run, record in self._runs_of(method)]

    def _refitted(self, name: str) -> list[BagNet]:
        """Train on all cases, with the median of the epochs of the folds and the settings that most folds chose."""
        records = [record for _, record in self._runs_of(name)]
        settings = Counter(str(record["settings"]) for record in records).most_common(1)[0][0]
        chosen = next(record["settings"] for record in records if str(record["settings"]) == settings)
        method = next(method for method in self.work.methods if method.name == name)
        method, training = apply_settings(method, self.work.training, chosen)
        epochs = max(1, round(float(np.median([record["epoch"] for record in records]))))
        training = replace(training, epochs=epochs)
        return [train_bag_network(method, {}, self.work.items, [], self.work.task, training).network]

    def _methods(self) -> dict[str, Any]:
        found = {}
        for method in self.work.methods:
            records = self._runs_of(method.name)
            prefix = f"{method.name}/fold_"
            found[method.name] = {
                "settings": _settings(method, self.work.training),
                "chosen": [{"fold": _fold(run), **record["settings"]} for run, record in records if record["settings"]],
                "num_parameters": _count_parameters(self._networks(method.name)[:1]),
                "candidates": max((record["candidates"] for _, record in records), default=0),
                "failed": {
                    name.removeprefix(prefix): reason
                    for name, reason in self.failures.items()
                    if name.startswith(prefix)
                },
            }
        return found

    def _histories(self) -> dict[str, Any]:
        return {
            method.name: [read_history(self.runner.run_folder(run) / HISTORY) for run, _ in self._runs_of(method.name)]
            for method in self.work.methods
        }

    def _folds(self) -> dict[str, Any]:
        plan, splits = self.study.plan, self.work.splits
        counts = [
            {"fold": fold, "repeat": splits.repeats[fold], **{part: len(cases) for part, cases in parts.items()}}
            | {f"{part}_patients": len({i[PATIENT] for i in self.work.part(fold, part)}) for part in parts}
            | {f"{part}_labels": label_counts(self.work.part(fold, part), self.work.task) for part in parts}
            for fold, parts in enumerate(splits.folds)
        ]
        per_repeat = max(Counter(splits.repeats).values())
        values = {"by": plan.by, "num_folds": per_repeat, "repeats": len(set(splits.repeats))}
        return {**values, "val_fraction": plan.val_fraction, "counts": counts}

    def _all_notes(self) -> list[str]:
        of_training = [*_weights_note(self.finished), *self._missing_terms()]
        notes = [*self.study.options.notes, *self.study.fold_notes(), *of_training, *self.notes]
        for method in self.work.methods:
            failed = [name for name in self.failures if name.startswith(f"{method.name}/fold_")]
            if failed:
                folds = ", ".join(name.rpartition("_")[2] for name in failed)
                notes.append(f"{method.name} failed in fold {folds}: {self.failures[failed[0]]}")
        return list(dict.fromkeys(notes))

    def _missing_terms(self) -> list[str]:
        """Return what the losses of the methods lack, which is the same in all folds."""
        first = [runs[0][1] for method in self.work.methods if (runs := self._runs_of(method.name))]
        return [note for record in first for note in record["notes"]]

    def _network_of(self, method: str, row: Mapping[str, Any]) -> BagNet | None:
        """Return the network of a method that predicted a case as one of the test part."""
        runs = {_fold(run): (run, record) for run, record in self._runs_of(method)}
        if row["fold"] not in runs:
            return None
        run, record = runs[row["fold"]]
        return self.work.network(run, self.runner.run_folder(run), record)


def _weights_note(records: Sequence[tuple[Run, Mapping[str, Any]]]) -> list[str]:
    """Return what the loss weights in the first fold that does, and what it means for the probabilities."""
    noted = [(_fold(run), str(record["weights_note"])) for run, record in records if record["weights_note"]]
    if not noted:
        return []
    folds = {_fold(run) for run, _ in records}
    number, note = noted[0]
    where = f"{len({fold for fold, _ in noted})} of {len(folds)} folds" if len(folds) > 1 else "the training"
    return [
        f"In {where}: {note[:1].lower()}{note[1:].rstrip('.')} (of fold {number}). Probabilities of these networks are "
        "those of classes weighted alike: they are too high for rare classes."
    ]


def operating_threshold(predictions: Predictions, task: Task) -> float | None:
    """Choose the threshold of a model of two classes by Youden's index of its out-of-fold predictions.

    Returns:
        The threshold, or ``None`` if the task has none, cases are too few, or scores do not separate the classes.
    """
    if not task.is_binary:
        return None
    test = predictions.of_part("test")
    threshold = choose_threshold(test.truth.astype(float), test.output[:, 1])
    return None if np.isnan(threshold) else threshold


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the values of the epochs of a run."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]


def _settings(method: Any, training: Any) -> dict[str, Any]:
    _, changed = apply_settings(method, training, {})
    network = {name: value for name, value in method.network.items() if name != "_target_"}
    terms = {name: weight for name, weight in method.weights.items() if weight}
    names = ("epochs", "patience", "learning_rate", "weight_decay", "batch_size", "seed")
    return {**network, **terms, **{name: getattr(changed, name) for name in names}}


def _count_parameters(networks: Sequence[BagNet]) -> int | None:
    return next((sum(p.numel() for p in network.parameters()) for network in networks), None)


def _fold(run: Run) -> int:
    return int(run.name.rpartition("_")[2])
