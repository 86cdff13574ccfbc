"""Evaluation of the models of a study on another cohort."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from monai_mil_ext.apps.bundle.trained_model import WEIGHTS_FILE
from monai_mil_ext.apps.check import check_study_items
from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.data.features.identities import item_identity
from monai_mil_ext.networks.nets import BagEnsemble, BagNet
from monai_mil_ext.transforms.bags.check_source import compare_source
from monai_mil_ext.utils import BagKeys, check_name, load_json, write_json
from monai_mil_ext.utils.files import remove_file

from .clinical import apply_values
from .methods import StudyMethod
from .models import read_study_model
from .predictions import Predictions
from .report.decisions import Thresholds, pooled_thresholds
from .results import CHECKED, CLINICAL, CohortResults, read_left_out, write_cohort_report
from .runs import StudyRunner, write_line
from .work import predict_bags

if TYPE_CHECKING:
    from .study import Study

__all__ = ["evaluate_external", "remove_outdated"]

Items = Sequence[Mapping[str, Any]]
PATIENT = str(BagKeys.PATIENT)
EVALUATED = "evaluated.json"


def evaluate_external(study: Study, items: Items, name: str, allow_mismatch: bool = False) -> Path:
    """Evaluate the models of a finished study on another cohort, see :py:meth:`Study.evaluate_external`."""
    check_name(name=name)
    if not items:
        raise ValueError("`items` must not be empty, got none.")
    folder, task = study.folder / "external" / name, study.work.task
    _remove_results(folder)
    items, left_out, file_notes = check_study_items(items, study.check_settings, folder / CHECKED)
    bags: dict[str, Predictions] = {}
    networks: dict[str, BagNet] = {}
    clinical: dict[str, dict[str, Predictions]] = {}
    thresholds: dict[str, Thresholds] = {}
    notes = ["Networks, thresholds and clinical models are those of the study; nothing was fitted on this cohort."]
    for method in study.work.methods:
        models = study.folder / "models" / method.name
        if not models.exists():
            continue
        trained = next(iter(ModelRecord.read(models).sources), None)
        check = compare_source(trained, InstanceSource.from_items(items), allow_mismatch)
        if check.startswith("mismatch"):
            notes.append(f"The bags differ from those of the training: {check}.")
        networks[method.name] = _network(study, method, models)
        rows = predict_bags(networks[method.name], items, task)
        bags[method.name] = rows
        if (models / CLINICAL).exists():
            clinical[method.name] = _clinical(study, method.name, items, rows)
        for part, predictions in {"": rows, **clinical.get(method.name, {})}.items():
            full = f"{method.name} {part}".strip()
            predictions.write(folder / "predictions" / f"{full}.csv")
            thresholds[full] = _thresholds(study, full)
    notes += _shared(study, items)
    if not bags:
        raise FileNotFoundError("`models` must exist in the folder of the study, got none: run the study first.")
    facts = {"folds": {"refit": study.options.refit}}
    notes = list(dict.fromkeys([*notes, *file_notes]))
    left_out = [*read_left_out(folder), *left_out]
    results = CohortResults(task, items, bags, clinical, thresholds, facts, notes, left_out)
    write_json(folder / EVALUATED, {method: _state(study.folder, method) for method in bags})
    return write_cohort_report(study, results, folder, (), lambda method, _: networks[method], name)


def remove_outdated(folder: Path) -> None:
    """Remove the reports of other cohorts that rest on models which the study no longer has, and say so.

    Args:
        folder: folder of the study, with its new models and predictions.
    """
    for report in sorted((folder / "external").glob("*/report.html")):
        known = report.parent / EVALUATED
        evaluated = load_json(known) if known.exists() else {"": ""}
        if any(state != _state(folder, method) for method, state in evaluated.items()):
            _remove_results(report.parent)
            name = report.parent.name
            write_line(f"The models have changed, so the report of {name!r} is removed: evaluate them on it again.")


def _state(folder: Path, method: str) -> str:
    """Return a hash of the model of a method, and of the predictions that its thresholds rest on."""
    models = folder / "models" / method
    files = [models / WEIGHTS_FILE, models / CLINICAL, folder / "predictions" / f"{method}.csv"]
    contents = [file.read_bytes() if file.exists() else b"" for file in files]
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()


def _remove_results(folder: Path) -> None:
    """Remove the results of an earlier call, whose table may have been another; the list of left-out cases is new."""
    for path in (folder / "predictions", folder / "tables"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder / "report.html", folder / "report.json", folder / EVALUATED):
        remove_file(path)


def _shared(study: Study, items: Items) -> list[str]:
    """Return a sentence for patients, and one for bags, that the networks may have been trained on."""
    known = {str(item[PATIENT]) for item in study.work.items}
    patients = {str(item[PATIENT]) for item in items}
    seen = {item_identity(item) for item in study.work.items} - {None}
    bags = sum(item_identity(item) in seen for item in items)
    notes = []
    if bags:
        notes.append(f"{bags} of {len(items)} bags of this cohort are those of the study: it is not external.")
    if shared := len(known & patients):
        notes.append(
            f"{shared} of {len(patients)} patients of this cohort have the name of a patient of the study: if they are "
            "the same, the values are too high."
        )
    return notes


def _network(study: Study, method: StudyMethod, models: Path) -> BagNet:
    """Return the model of a method; one of another package, which no record describes, from the runs of the folds."""
    if method.is_recorded:
        return cast(BagNet, read_study_model(models).network)
    if study.options.refit:
        raise ValueError(f"`refit` must be False to evaluate {method.name}, a network of another package, got True.")
    runner = StudyRunner(study.folder / "runs", study.work)
    runs = [run for run in study.work.runs() if run.name.startswith(f"{method.name}/fold_")]
    finished = [(run, record) for run in runs if (record := runner.read(run)) is not None]
    nets = [study.work.network(run, runner.run_folder(run), record) for run, record in finished]
    return nets[0] if len(nets) == 1 else BagEnsemble(nets, study.work.task.kind)


def _thresholds(study: Study, name: str) -> Thresholds:
    """Return the thresholds by Youden's index of the out-of-fold predictions of the study."""
    return pooled_thresholds(Predictions.read(study.folder / "predictions" / f"{name}.csv"), study.work.task)


def _clinical(study: Study, method: str, items: Items, bag: Predictions) -> dict[str, Predictions]:
    """Return the mean predictions of the clinical models of all folds."""
    values = load_json(study.folder / "models" / method / CLINICAL)
    folds = [apply_values(fold, items, study.work.task, bag) for fold in values.values()]
    return {
        name: replace(
            folds[0][name],
            output=np.mean([fold[name].output for fold in folds], axis=0),
            survival=None if bag.survival is None else np.mean([np.asarray(f[name].survival) for f in folds], axis=0),
        )
        for name in ("clinical", "both")
    }
