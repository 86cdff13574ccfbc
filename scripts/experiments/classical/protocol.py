"""Protocol of the classical data sets: ``scripts/reproduce classical`` writes docs/results/classical.json.

The protocol is repeated stratified 10-fold cross-validation. In each fold, all settings of a model are trained on the
training part and compared on the validation part; the best setting is trained again on both parts and predicts the test
part. Each fold of each model is a run. Finished runs are skipped, so a stopped protocol continues, and parts can be
executed in parallel (``--stage train --sets musk1 --models ABMIL``, or ``--stage train --part 1/4``).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from sklearn.metrics import log_loss, roc_auc_score

from experiments.workflows import BUNDLES, RESULTS, RUNS, prepare_data
from monai_mil_ext.apps.study import Run, StudyRunner, parse_part
from monai_mil_ext.utils import write_json

from .folds import NUM_FOLDS, REPEATS, read_fold
from .methods import MODELS, REGRESSIONS, SETTINGS
from .predictions import predict_network, predict_regression
from .table import make_result

__all__ = ["candidates", "collect", "evaluate_fold", "main", "make_run", "make_runner"]

SETS = ("musk1", "musk2", "elephant", "ucsb")
DATA = BUNDLES / "bag_classifier" / "data"


def candidates(model: str) -> list[dict[str, Any]]:
    """Return the candidate settings of a model, as complete configs.

    Example:
        >>> len(candidates("ABMIL")), len(candidates("pooled regression")), sum(len(candidates(m)) for m in MODELS)
        (2, 12, 12)
    """
    if model in REGRESSIONS:
        return REGRESSIONS[model]
    return [{**setting, **MODELS[model]} for setting in SETTINGS]


def make_run(name: str, model: str, fold: int) -> Run:
    """Return the run of one model on one fold of one set."""
    folder = model.replace(" ", "_").replace(",", "")
    settings = {"set": name, "model": model, "fold": fold, "candidates": candidates(model)}
    return Run(f"{name}/{folder}/fold_{fold:02d}", settings)


def make_runner(folder: Path, data_root: Path) -> StudyRunner:
    """Return the runner of all folds."""
    return StudyRunner(folder, partial(evaluate_fold, data_root), threads=1)


def evaluate_fold(data_root: Path, run: Run, _folder: Path) -> dict[str, Any]:
    """Select a setting by validation, train it on the training and validation parts, and predict the test part."""
    logging.disable(logging.ERROR)  # thousands of trainings, each with several lines
    number, settings = run.settings["fold"], run.settings["candidates"]
    fold = read_fold(data_root / run.settings["set"] / "cohort.csv", number)
    predict = predict_regression if run.settings["model"] in REGRESSIONS else predict_network
    validation = []
    if len(settings) > 1:
        train_bags, eval_bags = fold.standardized(["train"], "val")
        validation = [_score(eval_bags, predict(config, train_bags, eval_bags, number)) for config in settings]
    # the best AUROC; ties, which are frequent with few bags, are broken by the lowest loss
    chosen = max(range(len(validation)), key=lambda i: (validation[i]["auroc"], -validation[i]["loss"]), default=0)
    train_bags, test_bags = fold.standardized(["train", "val"], "test")
    probability = predict(settings[chosen], train_bags, test_bags, number)
    return {
        "candidates": settings,
        "validation": validation,
        "chosen": chosen,
        "cases": [bag["case_id"] for bag in test_bags],
        "labels": [bag["label"] for bag in test_bags],
        "probabilities": probability.tolist(),
    }


def _score(bags: Sequence[Mapping[str, Any]], probability: Any) -> dict[str, float]:
    labels = [bag["label"] for bag in bags]
    return {"auroc": float(roc_auc_score(labels, probability)), "loss": float(log_loss(labels, probability))}


def collect(
    runner: StudyRunner, sets: Sequence[str], models: Sequence[str], folds: Sequence[int]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Read the records of all runs, by set and model, in the order of the folds.

    Raises:
        RuntimeError: if a run is not finished.
    """
    return {
        name: {model: runner.read_all([make_run(name, model, fold) for fold in folds]) for model in models}
        for name in sets
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce classical", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*MODELS, *REGRESSIONS]
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="number of repeats of the folds")
    parser.add_argument("--folds", nargs="+", type=int, help="train only these folds")
    parser.add_argument("--stage", choices=["train", "table"], help="by default, both in this order")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes with one thread each")
    parser.add_argument("--part", type=parse_part, default=(1, 1), metavar="I/N", help="train part I of N")
    parser.add_argument("--data_root", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, default=RUNS / "classical", help="folder of the runs")
    args = parser.parse_args(words)
    prepare_data("bag_classifier", *args.sets, "--data_root", str(args.data_root.resolve()))
    runner = make_runner(args.folder, args.data_root)
    folds = range(NUM_FOLDS * args.repeats)
    if args.stage != "table":
        # runs of the same set follow one another, since a process caches the bags of one set
        runs = [make_run(*run) for run in product(args.sets, args.models, args.folds or folds)]
        runner.run_all(runs, args.jobs, args.part)
    if args.stage != "train":
        table = make_result(collect(runner, SETS, names, folds), list(MODELS), list(REGRESSIONS))
        write_json(RESULTS / "classical.json", table)
        print(json.dumps(table["claims"], indent=1))
