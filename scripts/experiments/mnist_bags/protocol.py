"""Protocol of MNIST-bags: ``scripts/reproduce mnist_bags`` writes docs/results/mnist_bags*.json.

It executes the trainings of methods.py and tests each once. Finished runs are skipped, so a stopped protocol continues.
Bags of the test digits are not read before all trainings are finished and the weight of the anchor is selected.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from sklearn.metrics import roc_auc_score

from experiments.workflows import RUNS, make_workflow
from monai_mil_ext.apps.study import Run, StudyRunner
from monai_mil_ext.utils import write_json

from .methods import ANCHORS, SEEDS, Training, all_trainings
from .prepare import prepare_digits
from .tables import write_tables

__all__ = ["choose_beta", "evaluate", "main", "pooled_aurocs", "train"]

HERE = Path(__file__).parent
FOLDER = RUNS / "mnist_bags"
TOLERANCE = 0.005  # change of bag AUROC that an anchor may cause
UNIFORM = 0.99  # entropy ratio from which attention is considered uniform
VALUES = ("bag_auroc", "bag_accuracy", "instance_auroc", "instance_ap", "positive_mass")


def open_workflow(overrides: Mapping[str, Any], *overlays: str, **paths: str) -> ConfigWorkflow:
    """Create an initialized workflow of the configs with ``overlays`` on top."""
    workflow = make_workflow(HERE, ("train", *overlays), **overrides, **paths)
    workflow.initialize()
    return workflow


def train(run: Run, folder: Path) -> dict[str, Any]:
    """Train, and return the values on validation bags.

    ``jsd`` is the mean over bags and epochs, ``entropy_ratio`` the value of the epoch whose weights are kept.
    """
    logging.disable(logging.ERROR)
    workflow = open_workflow(run.settings, ckpt_dir=str(folder))
    workflow.run()
    state = workflow.parser.get_parsed_content("validate#evaluator").state
    stability = json.loads((folder / "attention_stability.json").read_text())
    return {
        "bag_auroc": state.best_metric,
        "best_epoch": state.best_metric_epoch,
        "jsd": stability["jsd"],
        "entropy_ratio": stability["epochs"][state.best_metric_epoch - 1]["uniformity"],
    }


def evaluate(run: Run, folder: Path) -> dict[str, float]:
    """Evaluate a trained network, whose folder is the parent of ``folder``, on the test bags."""
    logging.disable(logging.ERROR)
    overlays = ("evaluate", "received") if run.settings["received"] else ("evaluate",)
    paths = {"ckpt_dir": str(folder.parent), "output_dir": str(folder)}
    open_workflow(run.settings["overrides"], *overlays, **paths).run()
    values = json.loads((folder / "report.json").read_text())["values"]
    return {**{name: values[name] for name in VALUES}, **pooled_aurocs(folder / "instances.csv")}


def evaluation_run(training: Training, received: bool = False, **overrides: Any) -> Run:
    """Return the run that evaluates the pool attention of a training, or the attention that instances receive."""
    settings = {"received": received, "overrides": {**training.overrides, "num_samples": 20, **overrides}}
    return Run(f"{training.name}/{'received' if received else 'test'}", settings)


def choose_beta(records: Mapping[float, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Select the anchor weight that moves attention least without a cost in bag AUROC or uniform attention.

    Args:
        records: records of :py:func:`train` on validation bags, by weight; 0 is the network without the anchor. No
            instance label is used.

    Returns:
        ``beta``, and whether it is ``allowed``; if no weight is, ``beta`` is the weight with the best bag AUROC.

    Example:
        >>> values = {0.0: (0.98, 0.1, 0.5), 0.01: (0.978, 0.05, 0.6), 0.1: (0.95, 0.01, 0.7), 0.3: (0.98, 0.0, 1.0)}
        >>> names = ("bag_auroc", "jsd", "entropy_ratio")
        >>> choose_beta({beta: [dict(zip(names, row))] for beta, row in values.items()})
        {'beta': 0.01, 'allowed': True}
    """
    means = {
        beta: {name: float(np.mean([row[name] for row in rows])) for name in ("bag_auroc", "jsd", "entropy_ratio")}
        for beta, rows in records.items()
    }
    plain = means.pop(0.0)
    allowed = {
        beta: mean["jsd"]
        for beta, mean in means.items()
        if abs(mean["bag_auroc"] - plain["bag_auroc"]) <= TOLERANCE
        and mean["entropy_ratio"] < UNIFORM
        and mean["jsd"] < plain["jsd"]
    }
    best = min(allowed, key=lambda b: allowed[b]) if allowed else max(means, key=lambda b: means[b]["bag_auroc"])
    return {"beta": best, "allowed": bool(allowed)}


def pooled_aurocs(file: Path) -> dict[str, float]:
    """Compute the AUROC of the pooled instances of all positive bags, by attention and by attention times bag size.

    Attention alone favors the instances of small bags.
    """
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    positive = {row["case_id"] for row in rows if int(row["instance_label"])}
    kept = [row for row in rows if row["case_id"] in positive]
    sizes = Counter(row["case_id"] for row in kept)
    labels, attention = [int(row["instance_label"]) for row in kept], [float(row["attention"]) for row in kept]
    ratio = [a * sizes[row["case_id"]] for a, row in zip(attention, kept, strict=True)]
    scores = {"pooled_auroc": attention, "pooled_ratio_auroc": ratio}
    return {name: float(roc_auc_score(labels, values)) for name, values in scores.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce mnist_bags", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=["train", "test"], help="by default, both in this order")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    args = parser.parse_args(words)
    prepare_digits(HERE / "data")
    folder, trainings = args.folder.resolve(), all_trainings()
    records = dict(zip(trainings, StudyRunner(folder, train, threads=1).run_all(
        [training.run() for training in trainings], args.jobs), strict=True))  # fmt: skip
    tried = (0.0, *ANCHORS["ABMIL"])
    choice = choose_beta({beta: [records[Training("ABMIL", seed, beta)] for seed in SEEDS] for beta in tried})
    write_json(folder / "choice.json", choice)
    print("chosen on validation bags:", choice, flush=True)
    if args.stage != "train":
        runner = StudyRunner(folder, evaluate, threads=1)
        of_received = [training for training in trainings if training.network == "QG-MIL"]
        runs = [evaluation_run(training) for training in trainings]
        runs += [evaluation_run(training, received=True) for training in of_received]
        values = runner.run_all(runs, args.jobs)
        tested = dict(zip(trainings, values, strict=False))
        write_tables(records, tested, dict(zip(of_received, values[len(trainings) :], strict=True)), choice)
