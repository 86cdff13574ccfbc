"""Trains what methods.py lists and tests it once: ``python -m scripts.protocol --help``.

A run that is finished is not run again, so that a stopped one goes on. No bag of the test digits is read before
everything is trained and the anchor's weight is chosen.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from sklearn.metrics import roc_auc_score

from monai_mil_ext.utils import write_json

from .methods import ANCHORS, SEEDS, Run, all_runs
from .prepare import prepare_digits
from .tables import write_tables

__all__ = ["ROOT", "chosen_beta", "main", "pooled_aurocs", "read_test", "train"]

BUNDLE = Path(__file__).resolve().parents[1]
ROOT = BUNDLE.parents[1]
TOLERANCE = 0.005  # of bag AUROC that an anchor may move
UNIFORM = 0.99  # entropy ratio from which attention chooses nothing
VALUES = ("bag_auroc", "bag_accuracy", "instance_auroc", "instance_ap", "positive_mass")


def workflow(run: Run, folder: Path, *more: str, **override: Any) -> ConfigWorkflow:
    """The bundle's configs as a run has them, with the files of ``more`` laid over them."""
    configs = [f"configs/{name}.yaml" for name in ("train", *more)]
    settings = {**run.overrides, "ckpt_dir": str(folder / run.name), **override}
    made = ConfigWorkflow(configs, workflow_type="train", logging_file=False, **settings)
    made.initialize()
    return made


def train(run: Run, folder: Path, **override: Any) -> dict[str, Any]:
    """The record of a finished run; made where it is not there, or where it was made with other settings.

    ``jsd`` is the mean over validation bags and epochs, ``entropy_ratio`` that of the epoch that is kept.
    """
    record, settings = folder / run.name / "run.json", {**run.overrides, **override}
    if record.exists():
        found = json.loads(record.read_text())
        if found["settings"] == settings:
            return found
    start, cpu = time.perf_counter(), time.process_time()
    made = workflow(run, folder, **override)
    made.run()
    state = made.parser.get_parsed_content("validate#evaluator").state
    stability = json.loads((folder / run.name / "attention_stability.json").read_text())
    found = {
        "settings": settings,
        "bag_auroc": state.best_metric,
        "best_epoch": state.best_metric_epoch,
        "jsd": stability["jsd"],
        "entropy_ratio": stability["epochs"][state.best_metric_epoch - 1]["uniformity"],
        "wall_seconds": round(time.perf_counter() - start),
        "cpu_seconds": round(time.process_time() - cpu),
    }
    write_json(record, found)
    return found


def chosen_beta(records: Mapping[float, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Which weight of the anchor moves attention least, of those that cost no bag AUROC and leave attention a choice.

    Args:
        records: those of :py:func:`train`, on validation bags, by weight; 0 is the network without the anchor. No
            instance label has a say.

    Returns:
        ``beta``, and whether it is ``allowed``: where none is, it is the one of the best bag AUROC.

    Example:
        >>> made = {0.0: (0.98, 0.1, 0.5), 0.01: (0.978, 0.05, 0.6), 0.1: (0.95, 0.01, 0.7), 0.3: (0.98, 0.0, 1.0)}
        >>> names = ("bag_auroc", "jsd", "entropy_ratio")
        >>> chosen_beta({beta: [dict(zip(names, values))] for beta, values in made.items()})
        {'beta': 0.01, 'allowed': True}
    """
    means = {
        beta: {name: float(np.mean([one[name] for one in own])) for name in ("bag_auroc", "jsd", "entropy_ratio")}
        for beta, own in records.items()
    }
    plain = means.pop(0.0)
    allowed = {
        beta: one["jsd"]
        for beta, one in means.items()
        if abs(one["bag_auroc"] - plain["bag_auroc"]) <= TOLERANCE
        and one["entropy_ratio"] < UNIFORM
        and one["jsd"] < plain["jsd"]
    }
    best = min(allowed, key=lambda b: allowed[b]) if allowed else max(means, key=lambda b: means[b]["bag_auroc"])
    return {"beta": best, "allowed": bool(allowed)}


def read_test(run: Run, folder: Path, received: bool = False, **override: Any) -> dict[str, float]:
    """Values on the test bags of the run's seed, read once: of pool attention, or of received mass."""
    kind = "received" if received else "test"
    output = folder / run.name / kind
    if not (output / "report.json").exists():
        overlays = ("evaluate", "received") if received else ("evaluate",)
        made = workflow(run, folder, *overlays, output_dir=str(output), **{"num_samples": 20, **override})
        made.run()
    values = json.loads((output / "report.json").read_text())["values"]
    return {**{name: values[name] for name in VALUES}, **pooled_aurocs(output / "instances.csv")}


def pooled_aurocs(file: Path) -> dict[str, float]:
    """AUROC of the attention of the instances of all positive bags together: as it is, and times its bag's size N.

    As it is, an instance of a small bag has more than one of a large bag, whatever it shows.
    """
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    positive = {row["case_id"] for row in rows if int(row["instance_label"])}
    own = [row for row in rows if row["case_id"] in positive]
    sizes = Counter(row["case_id"] for row in own)
    labels, attention = [int(row["instance_label"]) for row in own], [float(row["attention"]) for row in own]
    ratio = [a * sizes[row["case_id"]] for a, row in zip(attention, own, strict=True)]
    found = {"pooled_auroc": attention, "pooled_ratio_auroc": ratio}
    return {name: float(roc_auc_score(labels, scores)) for name, scores in found.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["train", "test"], help="both, one after the other, if not given")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "mnist_bags", help="of the records")
    args = parser.parse_args(words)
    os.chdir(BUNDLE)
    prepare_digits(BUNDLE / "data")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    folder = args.folder.resolve()
    records = {}
    for run in all_runs():
        records[run] = train(run, folder)
        print(run.name, {key: value for key, value in records[run].items() if key != "settings"}, flush=True)
    tried = (0.0, *ANCHORS["ABMIL"])
    choice = chosen_beta({beta: [records[Run("ABMIL", seed, beta)] for seed in SEEDS] for beta in tried})
    write_json(folder / "choice.json", choice)
    print("chosen on validation bags:", choice, flush=True)
    if args.stage != "train":
        found = {}
        for run in all_runs():
            found[run] = read_test(run, folder)
            print(run.name, found[run], flush=True)
        received = {run: read_test(run, folder, received=True) for run in all_runs() if run.network == "QG-MIL"}
        write_tables(records, found, received, choice)


if __name__ == "__main__":
    main()
