"""Trains what methods.py lists and reads each test set once: ``python -m scripts.protocol [train|test] ...``.

A run that is finished is not run again, so that a stopped one goes on, and parts of the list can run side by side
(``--runs 'window_*_1'``). Nothing is tested before everything is trained and the choice is made.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from sklearn.metrics import roc_auc_score

import monai_mil_ext
from monai_mil_ext.data import ShiftedMeanBags
from monai_mil_ext.metrics import center_scores, localization, run_posterior, shift_evidence
from monai_mil_ext.utils import write_json

from .methods import L1_TRIED, TRIED, VARIANTS, WINDOW_TRIED, Run, cpu_runs, window_runs

__all__ = ["chosen_l1", "main", "read_test_set", "test", "train"]

BUNDLE = Path(__file__).resolve().parents[1]
ROOT = BUNDLE.parents[1]
RESULTS = ROOT / "docs" / "results"
LOG = RESULTS / "semi_synthetic_reads.jsonl"
VALUES = ("bag_auroc", "instance_auroc", "instance_ap")


def train(run: Run, folder: Path) -> dict[str, Any]:
    """The record of a finished run: what it scored on validation, and what that took."""
    record = folder / run.name / "run.json"
    if not record.exists():
        start, cpu = time.perf_counter(), time.process_time()
        workflow = _workflow(run, folder)
        workflow.initialize()
        workflow.run()
        state = workflow.parser.get_parsed_content("validate#evaluator").state
        write_json(
            record,
            {
                "val_bag_auroc": state.best_metric,
                "best_epoch": state.best_metric_epoch,
                "epochs": workflow.parser.get_parsed_content("epochs"),
                "wall_seconds": round(time.perf_counter() - start),
                "cpu_seconds": round(time.process_time() - cpu),
            },
        )
    return json.loads(record.read_text())


def _workflow(run: Run, folder: Path, *more: str) -> ConfigWorkflow:
    seed = 1000 * run.index
    return ConfigWorkflow(
        [f"configs/{name}.yaml" for name in (*run.configs, *more)],
        logging_file=False,
        seed=seed + 1,
        train_seed=seed + 1,
        val_seed=seed + 2,
        ckpt_dir=str(folder / run.name),
        **run.overrides,
    )


def chosen_l1(folder: Path) -> float:
    """The penalty with the best mean validation scan AUROC over the published sets; no slice label has a say."""

    def score(l1: float) -> float:
        return float(np.mean([train(run, folder)["val_bag_auroc"] for run in window_runs("published", l1)]))

    return max(L1_TRIED, key=score)


def read_test_set(variant: str, index: int, purpose: str, again: str | None = None) -> ShiftedMeanBags:
    """Draw a test set, and write down that it was.

    Raises:
        RuntimeError: when the log says that it was read before, unless ``again`` says why it must be.
    """
    seed = 1000 * index + 3
    lines = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    before = [line for line in lines if (line["variant"], line["seed"]) == (variant, seed)]
    if before and not again:
        raise RuntimeError(
            f"`again` must say why set {seed} ({variant}) is read once more, after {before[-1]['time']}."
        )
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        "variant": variant,
        "options": VARIANTS[variant],
        "purpose": purpose,
        "commit": _commit(),
        **({"again": again} if again else {}),
    }
    with LOG.open("a") as log:
        log.write(json.dumps(line) + "\n")
    return ShiftedMeanBags(1000, seed, **VARIANTS[variant])


def test(runs: Sequence[Run], bags: ShiftedMeanBags, folder: Path) -> dict[str, dict[str, float]]:
    """Values of every trained network on one test set, by the name of the run."""
    found = {}
    for run in runs:
        workflow = _workflow(run, folder, "evaluate")
        workflow.parser["validate"]["dataset"] = bags
        workflow.initialize()
        workflow.run()
        metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
        found[run.name] = {name: float(metrics[name]) for name in VALUES}
        print(run.name, found[run.name], flush=True)
    return found


def bounds(bags: ShiftedMeanBags, options: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What knows everything of how the set is drawn, and what knows only the middle of a bag."""
    shift, columns = options.get("shift", 0.5), slice(1)
    if "feature_seed" in options:
        import torch  # noqa: PLC0415 - for one permutation

        order = torch.randperm(768, generator=torch.Generator().manual_seed(options["feature_seed"]))
        columns = slice(int(order.argsort()[0]), int(order.argsort()[0]) + 1)
    knows = [run_posterior(shift_evidence(b["image"][:, columns], shift), bags.run_length) for b in bags]
    scores = {"Bayes": [k.instances for k in knows], "centre": [center_scores(len(k.instances)) for k in knows]}
    found = {}
    for name, each in scores.items():
        own = [localization(s, b["instance_label"]) for s, b in zip(each, bags, strict=True) if b["label"]]
        means = {key: float(np.nanmean([v[key] for v in own])) for key in ("auroc", "average_precision")}
        found[name] = {"instance_auroc": means["auroc"], "instance_ap": means["average_precision"]}
    found["Bayes"]["bag_auroc"] = float(roc_auc_score(bags.labels, [k.log_odds for k in knows]))
    return found


def row(name: str, by_set: Sequence[dict[str, float]], records: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Mean and population sd over the sets, with what the runs took."""
    seeds = {key: [found[key] for found in by_set] for key in VALUES if key in by_set[0]}
    took = {
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
        **took,
    }


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def rows_of(
    runs: Sequence[Run], found: dict[str, dict[str, float]], folder: Path, tried: int | None = None
) -> list[dict[str, Any]]:
    """A row of each method, in order."""
    rows = []
    for name in dict.fromkeys(run.row for run in runs):
        own = [run for run in runs if run.row == name]
        made = row(name, [found[run.name] for run in own], [train(run, folder) for run in own])
        rows.append({**made, "settings_tried": tried or TRIED.get(name.split(" + ")[0], 1)})
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=["train", "test"], help="both, one after the other, if not given")
    parser.add_argument("--runs", default="*", help="train those whose name fits this pattern only")
    parser.add_argument("--again", help="why test sets that the log says were read must be read again")
    args = parser.parse_args(words)
    os.chdir(BUNDLE)
    folder = ROOT / "runs" / "semi_synthetic"
    first = [*cpu_runs(), *(run for l1 in L1_TRIED for run in window_runs("published", l1))]
    if args.stage != "test":
        _train_all(first, folder, args.runs)
    if args.runs != "*":
        return  # the choice, and what follows it, need all of them
    chosen = chosen_l1(folder)
    others = {variant: window_runs(variant, chosen) for variant in VARIANTS}
    _train_all([run for runs in others.values() for run in runs], folder)
    if args.stage != "train":
        _test_all(others, chosen, folder, args.again)


def _train_all(runs: Sequence[Run], folder: Path, pattern: str = "*") -> None:
    for run in runs:
        if fnmatch.fnmatch(run.name, pattern):
            print(run.name, train(run, folder), flush=True)


def _test_all(window: dict[str, list[Run]], chosen: float, folder: Path, again: str | None) -> None:
    """Read each test set once, for all networks that are to be tested on it, and write both tables."""
    tables: dict[str, list[dict[str, Any]]] = {"cpu": [], "window": []}
    for variant, runs in window.items():
        found: dict[str, dict[str, float]] = {}
        known: list[dict[str, dict[str, float]]] = []
        small = cpu_runs() if variant == "published" else []
        for index in sorted({run.index for run in runs}):
            bags = read_test_set(variant, index, f"{len(small) // 3 + 1} networks, Bayes and centre", again)
            found |= test([run for run in (*small, *runs) if run.index == index], bags, folder)
            known.append(bounds(bags, VARIANTS[variant]))
        edges = {name: row(name, [k[name] for k in known]) for name in known[0]}
        tables["cpu"] += rows_of(small, found, folder) + (list(edges.values()) if small else [])
        tables["window"] += rows_of(runs, found, folder, WINDOW_TRIED)
        tables["window"] += [{**edge, "name": f"{variant}: {name}"} for name, edge in edges.items()]
    _write("semi_synthetic", tables["cpu"], CPU_NOTE)
    _write("semi_synthetic_window", tables["window"], WINDOW_NOTE.format(l1=chosen, tried=L1_TRIED))


CPU_NOTE = (
    "Mean ± population sd over the three published sets. 1,000 bags for training, 250 for validation, 1,000 for the "
    "test; one setting a method, the epoch with the best validation scan AUROC."
)
WINDOW_NOTE = (
    "WindowMIL: mean ± population sd over three sets. 10,000 bags for training, 2,500 for validation, 1,000 for the "
    "test; penalty {l1} of {tried} by the mean validation scan AUROC of the published setting, kept for the others."
)


def _write(name: str, rows: list[dict[str, Any]], note: str) -> None:
    names = ("monai", "torch", "numpy", "scikit-learn")
    write_json(
        RESULTS / f"{name}.json",
        {
            "command": "scripts/reproduce semi_synthetic",
            "commit": _commit(),
            "seeds": [[1000 * i + k for k in (1, 2, 3)] for i in (1, 2, 3)],
            "versions": {"monai-mil-ext": monai_mil_ext.__version__, **{n: version(n) for n in names}},
            "wall_seconds": sum(3 * r.get("wall_seconds", 0) for r in rows),
            "columns": ["epochs", "settings_tried", "wall_seconds"],
            "note": note,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
