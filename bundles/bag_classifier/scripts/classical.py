"""Repeated stratified 10-fold on the classical sets: ``python -m scripts.classical --help``.

In each fold every setting of a model learns from the training part and is judged by the validation part; the best one
learns once more, from both, and answers the test part. Each fold of each model is a file, and one that is there is not
made again: a stopped run goes on, and parts can run side by side (``--stage train --sets musk1 --models ABMIL``).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.metrics import log_loss, roc_auc_score

from monai_mil_ext.utils import write_json

from .answers import network_answers, regression_answers
from .classical_table import result
from .folds import NUM_FOLDS, REPEATS, read_fold
from .methods import MODELS, REGRESSIONS, SETTINGS
from .prepare import CLASSICAL, prepare_classical

__all__ = ["Task", "candidates", "collect", "main", "run", "tasks"]

BUNDLE = Path(__file__).resolve().parents[1]
ROOT = BUNDLE.parents[1]


class Task(NamedTuple):
    """One model on one fold of one set, and the folders of sets and of records."""

    name: str
    model: str
    fold: int
    data_root: Path
    folder: Path

    @property
    def record(self) -> Path:
        """The file of what was found."""
        return self.folder / self.name / self.model.replace(" ", "_").replace(",", "") / f"fold_{self.fold:02d}.json"


def candidates(model: str) -> list[dict[str, Any]]:
    """All settings that a model is chosen among in each fold, as whole configs.

    Example:
        >>> len(candidates("ABMIL")), len(candidates("pooled regression")), sum(len(candidates(m)) for m in MODELS)
        (2, 12, 12)
    """
    if model in REGRESSIONS:
        return REGRESSIONS[model]
    return [{**setting, **MODELS[model]} for setting in SETTINGS]


def run(task: Task) -> dict[str, Any]:
    """The record of a task; made where it is not there, or where it was made with other settings."""
    settings = candidates(task.model)
    if task.record.exists():
        found = json.loads(task.record.read_text())
        if found["settings"] == settings:
            return found
    start = time.process_time()
    fold = read_fold(task.data_root / task.name / "cohort.csv", task.fold)
    answers = regression_answers if task.model in REGRESSIONS else network_answers
    judged = []
    if len(settings) > 1:
        known, asked = fold.standardized(["train"], "val")
        judged = [_judge(asked, answers(setting, known, asked, task.fold)) for setting in settings]
    # the best AUROC; of equal ones, which few bags make frequent, the lowest loss
    chosen = max(range(len(judged)), key=lambda i: (judged[i]["auroc"], -judged[i]["loss"])) if judged else 0
    known, asked = fold.standardized(["train", "val"], "test")
    probability = answers(settings[chosen], known, asked, task.fold)
    found = {
        "settings": settings,
        "validation": judged,
        "chosen": chosen,
        "cases": [bag["case_id"] for bag in asked],
        "labels": [bag["label"] for bag in asked],
        "probabilities": probability.tolist(),
        "cpu_seconds": round(time.process_time() - start, 2),
    }
    write_json(task.record, found)
    return found


def _judge(bags: Sequence[dict[str, Any]], probability: Any) -> dict[str, float]:
    labels = [bag["label"] for bag in bags]
    return {"auroc": float(roc_auc_score(labels, probability)), "loss": float(log_loss(labels, probability))}


def tasks(
    sets: Sequence[str], models: Sequence[str], folds: Sequence[int], data_root: Path, folder: Path
) -> Iterator[Task]:
    """All tasks, those of a set beside each other: a process keeps its bags."""
    for name, model, fold in product(sets, models, folds):
        yield Task(name, model, fold, data_root, folder)


def collect(every: Iterable[Task]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Records of all tasks, by set and model, in the order of the folds.

    Raises:
        RuntimeError: when one is not there, or was made with other settings.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task in every:
        record = json.loads(task.record.read_text()) if task.record.exists() else None
        if record is None or record["settings"] != candidates(task.model):
            raise RuntimeError(
                f"every fold must be there before a table, got none of {task.name}, {task.model}, {task.fold}."
            )
        found.setdefault(task.name, {}).setdefault(task.model, []).append(record)
    return found


def _quiet() -> None:
    logging.disable(logging.ERROR)  # of thousands of runs, each with several lines
    torch.set_num_threads(1)


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line, in the bundle's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*MODELS, *REGRESSIONS]
    parser.add_argument("--sets", nargs="+", choices=list(CLASSICAL), default=list(CLASSICAL))
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of the folds, from the first on")
    parser.add_argument("--folds", nargs="+", type=int, help="train these alone")
    parser.add_argument("--stage", choices=["train", "table"], help="both, one after the other, if not given")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--data_root", type=Path, default=BUNDLE / "data")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "classical", help="of the records")
    args = parser.parse_args(words)
    whole = range(NUM_FOLDS * args.repeats)
    for name in args.sets:
        prepare_classical(name, args.data_root)
    if args.stage != "table":
        start, todo = (
            time.perf_counter(),
            list(tasks(args.sets, args.models, args.folds or whole, args.data_root, args.folder)),
        )
        with ProcessPoolExecutor(args.jobs, initializer=_quiet) as pool:
            for number, (task, found) in enumerate(zip(todo, pool.map(run, todo), strict=True), 1):
                took = f"{found['cpu_seconds']} s of a core, {time.perf_counter() - start:.0f} s in all"
                print(f"{number}/{len(todo)} {task.name}, {task.model}, fold {task.fold}: {took}", flush=True)
    if args.stage != "train":
        every = tasks(list(CLASSICAL), names, whole, args.data_root, args.folder)
        table = result(collect(every), list(MODELS), list(REGRESSIONS))
        write_json(ROOT / "docs" / "results" / "classical.json", table)
        print(json.dumps(table["claims"], indent=1))


if __name__ == "__main__":
    main()
