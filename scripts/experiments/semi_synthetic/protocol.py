"""Protocol of the semi-synthetic set: ``scripts/reproduce semi_synthetic`` writes docs/results/semi_synthetic*.json.

It executes the trainings of methods.py and reads each test set once. Finished trainings are skipped, so a stopped
protocol continues, and parts can be executed in parallel (``--runs 'window_*_1'``). The test starts when all trainings
are finished and the penalty of WindowMIL is selected.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from sklearn.metrics import roc_auc_score

from experiments.workflows import RESULTS, ROOT, RUNS, make_workflow
from monai_mil_ext.apps.study import Run, StudyRunner, collect_provenance, read_commit
from monai_mil_ext.data import ShiftedMeanDataset, run_posterior, shift_evidence
from monai_mil_ext.metrics import center_scores, localization
from monai_mil_ext.utils import write_json

from .methods import L1_TRIED, TRIED, VARIANTS, WINDOW_TRIED, Training, cpu_trainings, window_trainings

__all__ = ["bounds", "choose_l1", "evaluate", "main", "read_test_set", "summarize_methods", "summarize_sets", "train"]

HERE = Path(__file__).parent
LOG = RESULTS / "semi_synthetic_reads.jsonl"
VALUES = ("bag_auroc", "instance_auroc", "instance_ap")
CPU_NOTE = (
    "Mean ± population sd over the three published sets. 1,000 bags for training, 250 for validation, 1,000 for the "
    "test; one setting a method, the epoch with the best validation bag AUROC."
)
WINDOW_NOTE = (
    "WindowMIL: mean ± population sd over three sets. 10,000 bags for training, 2,500 for validation, 1,000 for the "
    "test; penalty {l1} of {tried} by the mean validation bag AUROC of the published setting, kept for the others."
)
Record = Mapping[str, Any]


def train(run: Run, folder: Path) -> Record:
    """Train, and return the best validation value with its epoch."""
    workflow = open_workflow(run, folder)
    workflow.initialize()
    workflow.run()
    state = workflow.parser.get_parsed_content("validate#evaluator").state
    return {
        "val_bag_auroc": state.best_metric,
        "best_epoch": state.best_metric_epoch,
        "epochs": workflow.parser.get_parsed_content("epochs"),
    }


def open_workflow(run: Run, folder: Path, *overlays: str) -> ConfigWorkflow:
    """Create the workflow of a run."""
    configs = (*run.settings["configs"], *overlays)
    return make_workflow(HERE, configs, ckpt_dir=str(folder), **run.settings["overrides"])


def choose_l1(runner: StudyRunner) -> float:
    """Return the penalty with the best mean validation bag AUROC over the published sets; no slice label is used."""

    def score(l1: float) -> float:
        records = runner.read_all([training.run for training in window_trainings("published", l1)])
        return float(np.mean([record["val_bag_auroc"] for record in records]))

    return max(L1_TRIED, key=score)


def read_test_set(variant: str, index: int, purpose: str, again: str | None = None) -> ShiftedMeanDataset:
    """Draw a test set, and record in the log that it was read.

    Raises:
        RuntimeError: if the log has an earlier read of the set, unless ``again`` states the reason to repeat it.
    """
    seed = 1000 * index + 3
    lines = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    before = [line for line in lines if (line["variant"], line["seed"]) == (variant, seed)]
    if before and not again:
        raise RuntimeError(
            f"`again` must say why set {seed} ({variant}) is read once more, after {before[-1]['time']}."
        )
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "variant": variant,
        "options": VARIANTS[variant],
        "purpose": purpose,
        "commit": read_commit(ROOT),
        **({"again": again} if again else {}),
    }
    with LOG.open("a") as log:
        log.write(json.dumps(line) + "\n")
    return ShiftedMeanDataset(1000, seed, **VARIANTS[variant])


def evaluate(
    trainings: Sequence[Training], bags: ShiftedMeanDataset, runner: StudyRunner
) -> dict[str, dict[str, float]]:
    """Evaluate trained networks on one test set, and return the values by name of the training."""
    values = {}
    for training in trainings:
        workflow = open_workflow(training.run, runner.run_folder(training.run), "evaluate")
        workflow.parser["validate"]["dataset"] = bags
        workflow.initialize()
        workflow.run()
        metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
        values[training.name] = {name: float(metrics[name]) for name in VALUES}
        print(training.name, values[training.name], flush=True)
    return values


def bounds(bags: ShiftedMeanDataset, options: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Compute the values of Bayes' rule, given the distribution of the set, and of the center of a bag."""
    shift = options.get("shift", 0.5)
    posteriors = [run_posterior(shift_evidence(b["image"][:, :1], shift), bags.run_length) for b in bags]
    scores = {
        "Bayes": [posterior.instances for posterior in posteriors],
        "center": [center_scores(len(posterior.instances)) for posterior in posteriors],
    }
    result = {}
    for name, of_bags in scores.items():
        rows = [localization(s, b["instance_label"]) for s, b in zip(of_bags, bags, strict=True) if b["label"]]
        means = {key: float(np.nanmean([row[key] for row in rows])) for key in ("auroc", "average_precision")}
        result[name] = {"instance_auroc": means["auroc"], "instance_ap": means["average_precision"]}
    result["Bayes"]["bag_auroc"] = float(roc_auc_score(bags.labels, [posterior.log_odds for posterior in posteriors]))
    return result


def summarize_sets(name: str, by_set: Sequence[Mapping[str, float]], records: Sequence[Record] = ()) -> dict[str, Any]:
    """Return the row of a method: mean and population sd over the sets, with the cost of the trainings."""
    seeds = {key: [values[key] for values in by_set] for key in VALUES if key in by_set[0]}
    cost = {
        "epochs": records[0]["epochs"],
        "val_bag_auroc": round(float(np.mean([r["val_bag_auroc"] for r in records])), 4),
        "wall_seconds": round(float(np.mean([r["wall_seconds"] for r in records]))),
        "cpu_seconds": round(float(np.mean([r["cpu_seconds"] for r in records]))),
    } if records else {}  # fmt: skip
    return {
        "name": name,
        "values": {key: float(np.mean(v)) for key, v in seeds.items()},
        "sd": {key: float(np.std(v)) for key, v in seeds.items()},
        "seeds": seeds,
        **cost,
    }


def summarize_methods(
    trainings: Sequence[Training],
    values: Mapping[str, Mapping[str, float]],
    runner: StudyRunner,
    tried: int | None = None,
) -> list[dict[str, Any]]:
    """Return a row of each method, in order."""
    rows = []
    for name in dict.fromkeys(training.row for training in trainings):
        of_method = [training for training in trainings if training.row == name]
        records = runner.read_all([training.run for training in of_method])
        row = summarize_sets(name, [values[training.name] for training in of_method], records)
        rows.append({**row, "settings_tried": tried or TRIED.get(name.split(" + ")[0], 1)})
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce semi_synthetic", description=__doc__)
    parser.add_argument("--stage", choices=["train", "test"], help="by default, both in this order")
    parser.add_argument("--runs", default="*", help="train only those whose name matches this pattern")
    parser.add_argument("--again", help="reason to repeat test sets that were read according to the log")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    args = parser.parse_args(words)
    runner = StudyRunner(RUNS / "semi_synthetic", train)
    first = [*cpu_trainings(), *(t for l1 in L1_TRIED for t in window_trainings("published", l1))]
    if args.stage != "test":
        runner.run_all([t.run for t in first if fnmatch.fnmatch(t.name, args.runs)], args.jobs)
    if args.runs != "*":
        return  # the selection needs all runs
    l1 = choose_l1(runner)
    window = {variant: window_trainings(variant, l1) for variant in VARIANTS}
    runner.run_all([t.run for trainings in window.values() for t in trainings], args.jobs)
    if args.stage != "train":
        _test_all(window, l1, runner, args.again)


def _test_all(window: Mapping[str, list[Training]], l1: float, runner: StudyRunner, again: str | None) -> None:
    """Read each test set once, for all networks that are tested on it, and write both tables."""
    tables: dict[str, list[dict[str, Any]]] = {"cpu": [], "window": []}
    for variant, trainings in window.items():
        values: dict[str, dict[str, float]] = {}
        limits: list[dict[str, dict[str, float]]] = []
        small = cpu_trainings() if variant == "published" else []
        for index in sorted({training.index for training in trainings}):
            bags = read_test_set(variant, index, f"{len(small) // 3 + 1} networks, Bayes and center", again)
            values |= evaluate([t for t in (*small, *trainings) if t.index == index], bags, runner)
            limits.append(bounds(bags, VARIANTS[variant]))
        edges = {name: summarize_sets(name, [of_set[name] for of_set in limits]) for name in limits[0]}
        tables["cpu"] += summarize_methods(small, values, runner) + (list(edges.values()) if small else [])
        tables["window"] += summarize_methods(trainings, values, runner, WINDOW_TRIED)
        tables["window"] += [{**edge, "name": f"{variant}: {name}"} for name, edge in edges.items()]
    _write("semi_synthetic", tables["cpu"], CPU_NOTE)
    _write("semi_synthetic_window", tables["window"], WINDOW_NOTE.format(l1=l1, tried=L1_TRIED))


def _write(name: str, rows: Sequence[dict[str, Any]], note: str) -> None:
    seeds = [[1000 * i + k for k in (1, 2, 3)] for i in (1, 2, 3)]
    seconds = sum(3 * row.get("wall_seconds", 0) for row in rows)
    provenance = collect_provenance("scripts/reproduce semi_synthetic", seeds, seconds=seconds, repository=ROOT)
    columns = ["epochs", "settings_tried", "wall_seconds"]
    write_json(RESULTS / f"{name}.json", {**provenance, "columns": columns, "note": note, "rows": rows})
