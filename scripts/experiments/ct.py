"""Normal Guidance on six chest CTs: ``scripts/reproduce ct`` writes docs/results/ct.json.

The unmodified configs of bundles/scan_mil are run in one process: each patient is left out in turn, with three seeds,
with and without Normal Guidance. Baselines without a network are added.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.transforms import Compose
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_mil_ext.apps.study import Run, StudyRunner, collect_provenance
from monai_mil_ext.data import read_bag
from monai_mil_ext.metrics import bag_values, bootstrap_interval, instance_values

from .workflows import BUNDLES, RESULTS, ROOT, RUNS, make_workflow, prepare_data

__all__ = ["evaluate", "main", "summarize_patients"]

BUNDLE = BUNDLES / "scan_mil"
SEEDS = (0, 1, 2)
METHODS = (("ABMIL", 0.0), ("ABMIL + Normal Guidance", 1.0))
SHOWN = ("bag_auroc", "bag_accuracy", "bag_macro_f1", "instance_auroc", "instance_ap", "positive_mass")
Values = dict[str, Any]


def make_run(patient: str, seed: int, guidance: float) -> Run:
    """Return the run that leaves out ``patient``."""
    settings = {"test_patient": patient, "seed": seed, "guidance_weight": guidance}
    return Run(f"{patient}_seed{seed}_guidance{guidance}", settings)


def evaluate(run: Run, folder: Path) -> Values:
    """Train on all other patients, and return the report on the bags of the left-out patient."""
    for configs in (["train"], ["train", "evaluate"]):
        paths = {"ckpt_dir": str(folder), "output_dir": str(folder)}
        workflow = make_workflow(BUNDLE, configs, val_interval=1000, **run.settings, **paths)
        workflow.initialize()
        workflow.run()
    return dict(json.loads((folder / "report.json").read_text()))


def slice_statistics(workflow: ConfigWorkflow) -> dict[str, dict[str, np.ndarray]]:
    """Compute position and intensity statistics of the slices (N, S) of each scan."""
    before_encoder = Compose(workflow.parser.get_parsed_content("preprocessing").transforms[:-1])
    statistics = {}
    for scan in workflow.parser.get_parsed_content("cohort"):
        slices = before_encoder(scan)["slices"][:, 0].flatten(1).numpy()
        level = np.linspace(0, 1, len(slices))
        quantiles = np.quantile(slices, [0.1, 0.25, 0.5, 0.75, 0.9], axis=1)
        intensity = np.stack([slices.mean(1), slices.std(1), *quantiles], axis=1)
        statistics[scan["case_id"]] = {"position": np.stack([level, level**2], axis=1), "intensity": intensity}
    return statistics


def evaluate_regression(bags: list[Values], statistics: Mapping[str, Any], kind: str, patient: str) -> Values:
    """Evaluate a logistic regression on the mean slice statistics of a bag, whose weights also score the slices."""

    def slices(bag: Values) -> np.ndarray:
        rows: np.ndarray = statistics[Path(bag["image"]).stem][kind][bag["start"] : bag["stop"]]
        return rows

    train, test = ([b for b in bags if (b["patient"] == patient) == left_out] for left_out in (False, True))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit([slices(b).mean(0) for b in train], [b["label"] for b in train])
    rows = [score_slices(bag, model.decision_function(slices(bag))) for bag in test]
    probability = model.predict_proba([slices(b).mean(0) for b in test])
    means = {key: float(np.nanmean([row[key] for row in rows])) for key in ("instance_auroc", "instance_ap")}
    return {**bag_values([b["label"] for b in test], probability), **means}


def score_slices(bag: Values, scores: np.ndarray) -> Values:
    """Compute the instance values of one bag from the scores (N,) of its slices."""
    labels = read_bag(bag["image"], keys=["instance_label"], start=bag["start"], stop=bag["stop"])["instance_label"]
    return instance_values(torch.as_tensor(scores), labels)


def identify_patients(statistics: Mapping[str, Any], kind: str) -> float:
    """Compute how often the statistics of a single slice identify its patient (5-fold over slices)."""
    x = np.concatenate([s[kind] for s in statistics.values()])
    y = np.concatenate([[name] * len(s[kind]) for name, s in statistics.items()])
    return float(cross_val_score(make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)), x, y, cv=5).mean())


def summarize_patients(name: str, by_patient: Mapping[str, Values]) -> Values:
    """Return the row of a method: mean over patients, with an interval by resampling patients."""
    patients = list(by_patient.values())
    keys = [key for key in SHOWN if all(key in values for values in patients)]

    def mean(sample: Sequence[Values]) -> dict[str, float]:
        return {key: float(np.nanmean([values[key] for values in sample])) for key in keys}

    return {
        "name": name,
        "values": mean(patients),
        "interval_95": bootstrap_interval(patients, mean),
        "patients": dict(by_patient),
    }


def mean_over_seeds(reports: Sequence[Values], patient: str) -> Values:
    """Average the values of a patient over seeds, and keep the values of each seed."""
    values = [report["patients"][patient] for report in reports]
    numbers = {k: [np.nan if v[k] is None else v[k] for v in values] for k in values[0] if k != "num_bags"}
    return {**{k: float(np.mean(v)) for k, v in numbers.items()}, "num_bags": values[0]["num_bags"], "seeds": numbers}


def make_rows() -> Values:
    """Train and evaluate everything, and return all rows of the table."""
    workflow = make_workflow(BUNDLE, ["train"])
    workflow.initialize()
    bags = workflow.parser.get_parsed_content("bags")
    patients = list(dict.fromkeys(bag["patient"] for bag in bags))
    runner = StudyRunner(RUNS / "reproduce", evaluate)
    runner.run_all([make_run(p, seed, guidance) for _, guidance in METHODS for p in patients for seed in SEEDS])
    rows = []
    for name, guidance in METHODS:
        reports = {p: runner.read_all([make_run(p, seed, guidance) for seed in SEEDS]) for p in patients}
        rows.append(summarize_patients(name, {p: mean_over_seeds(reports[p], p) for p in patients}))
    statistics = slice_statistics(workflow)
    for kind in ("position", "intensity"):
        values = {p: evaluate_regression(bags, statistics, kind, p) for p in patients}
        rows.append(summarize_patients(f"{kind} only", values))
    guided = rows[1]["patients"]
    center = {p: {"instance_auroc": v["center_auroc"], "instance_ap": v["center_ap"]} for p, v in guided.items()}
    rows.append(summarize_patients("center of the bag", center))
    rows.append(
        summarize_patients("uniform", {p: {"positive_mass": v["positive_fraction"]} for p, v in guided.items()})
    )
    identified = {kind: identify_patients(statistics, kind) for kind in ("position", "intensity")}
    return {"rows": rows, "patient_told_by_one_slice": identified}


def make_notes(result: Values) -> dict[str, str]:
    """Return the notes below both tables."""
    num_patients = len(result["rows"][0]["patients"])
    intensity, position = (f"{result['patient_told_by_one_slice'][kind]:.0%}" for kind in ("intensity", "position"))
    return {
        "note": f"Mean over {num_patients} left-out patients of the mean over {len(SEEDS)} seeds; "
        "in brackets the 95 % interval by drawing patients again.",
        "by_patient": "AUROC over the bags, and over the slices of the positive bags, of each left-out patient. Whose "
        f"slice it is can be told from its intensities in {intensity} of cases and from its level in {position} "
        f"(5-fold over slices; one in {num_patients} would be chance).",
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    argparse.ArgumentParser(prog="scripts/reproduce ct", description=__doc__).parse_args(words)
    prepare_data("scan_mil", "ct")
    start = time.perf_counter()
    result = make_rows()
    seconds = time.perf_counter() - start
    provenance = collect_provenance("scripts/reproduce ct", SEEDS, seconds=seconds, repository=ROOT)
    content = {**provenance, **make_notes(result), **result}
    (RESULTS / "ct.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote docs/results/ct.json in {provenance['wall_seconds']} s")
