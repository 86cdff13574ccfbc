"""Search of settings: ``scripts/reproduce ct_protocol`` trains over seeds, selects by validation and tests once.

The protocol uses the cohort of bundles/scan_mil, or yours (``--set dataset_dir=DIR``). Every training has a folder with
``run.json``. Finished trainings are skipped, so a stopped search continues (a stopped training after its last epoch),
and parts can be executed in parallel (``--stage train --methods ABMIL --seeds 2001``, or ``--part 1/4``).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from monai.bundle import ConfigWorkflow
from monai.transforms import Compose

from experiments.workflows import BUNDLES, ROOT, make_workflow
from monai_mil_ext.apps.study import Run, StudyRunner, collect_provenance, parse_part
from monai_mil_ext.data import load_cohort
from monai_mil_ext.utils import write_json

from .figures import read_scans
from .methods import GRIDS, METHODS, SEEDS, settings
from .report import ReadSlices, make_page, write_page
from .table import compare_methods, format_table, read_rows

__all__ = ["Plan", "choose", "evaluate", "main", "make_results", "slice_reader", "test", "train"]

BUNDLE = BUNDLES / "scan_mil"
CONFIGS = Path(__file__).parent / "configs"


class Plan(NamedTuple):
    """Options that all runs of a search share.

    Attributes:
        protocol: name of the training protocol, ``published`` or ``modern``.
        folder: folder of all runs.
        data: overlays of the data, between ``train.yaml`` and ``protocol.yaml``.
        overrides: overrides of the configs for all methods; they take precedence over those of a method.
        grid: values to search instead of those of the protocol.
    """

    protocol: str
    folder: Path
    data: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = {}
    grid: Mapping[str, Sequence[float]] | None = None

    @property
    def paths(self) -> dict[str, str]:
        """Overrides that are paths: they do not affect results, and are not recorded."""
        return {key: value for key, value in self.overrides.items() if _is_path(key, value)}

    def settings(self, method: str) -> list[dict[str, float]]:
        """Return the settings of ``method``, restricted to the values of ``grid``."""
        allowed = self.grid or {}
        return [
            setting
            for setting in settings(self.protocol, method)
            if all(setting[key] in values for key, values in allowed.items() if key in setting)
        ]

    def run(self, method: str, seed: int, setting: Mapping[str, float]) -> Run:
        """Return the training run of a setting; its folder is ``protocol/method/seed/setting``."""
        words = "_".join(f"{key}-{value:g}" for key, value in setting.items())
        name = f"{self.protocol}/{method.replace(' + ', '_').replace(' ', '_')}/{seed}/{words}"
        shared = {key: value for key, value in self.overrides.items() if not _is_path(key, value)}
        overrides = {**METHODS[method].overrides, **setting, **shared, "seed": seed}
        configs = ("train", *self.data, "protocol", self.protocol)
        overlays = METHODS[method].configs
        return Run(name, {"configs": configs, "overlays": overlays, "overrides": overrides})

    def test_run(self, method: str, seed: int, setting: Mapping[str, float]) -> Run:
        """Return the run that evaluates a training on the test part."""
        run = self.run(method, seed, setting)
        return Run(f"{run.name}/test", run.settings)

    def trainer(self) -> StudyRunner:
        """Return the runner of trainings."""
        return StudyRunner(self.folder, partial(train, self.paths))

    def tester(self) -> StudyRunner:
        """Return the runner of evaluations."""
        return StudyRunner(self.folder, partial(evaluate, self.paths))


def _is_path(key: str, value: Any) -> bool:
    return isinstance(value, str) and (key.endswith("_dir") or "/" in value)


def open_workflow(run: Run, paths: Mapping[str, str], test: bool = False) -> ConfigWorkflow:
    """Create the workflow of a training or, with ``test``, of its evaluation."""
    configs: list[str | Path] = [*run.settings["configs"]]
    configs += [CONFIGS / f"{name}.yaml" for name in run.settings["overlays"]]
    if test:
        configs += ["evaluate"]
    return make_workflow(BUNDLE, configs, **run.settings["overrides"], **paths)


def train(paths: Mapping[str, str], run: Run, folder: Path) -> dict[str, Any]:
    """Train, and return the selected epoch with its validation value."""
    workflow = open_workflow(run, {**paths, "ckpt_dir": str(folder), "output_dir": str(folder / "log")})
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    epochs = json.loads((folder / "epochs.json").read_text())
    return {"chosen_by": epochs["metric"], "chosen": epochs["chosen"], "num_epochs": len(epochs["epochs"])}


def evaluate(paths: Mapping[str, str], run: Run, folder: Path) -> dict[str, Any]:
    """Evaluate the training in the parent of ``folder`` on the test part."""
    workflow = open_workflow(run, {**paths, "ckpt_dir": str(folder.parent), "output_dir": str(folder)}, test=True)
    workflow.initialize()
    workflow.run()
    return {}


def choose(plan: Plan, method: str, seed: int) -> dict[str, Any]:
    """Return the record of the first setting with the best validation value of one seed.

    Raises:
        RuntimeError: if a training of the search is not finished, or no setting has an eligible epoch.
    """
    runner, candidates = plan.trainer(), plan.settings(method)
    runs = [plan.run(method, seed, setting) for setting in candidates]
    records = [runner.read(run) for run in runs]
    missing = [run.name.rpartition("/")[2] for run, record in zip(runs, records, strict=True) if record is None]
    if missing:
        raise RuntimeError(f"every setting of {method!r}, seed {seed}, must be trained before a choice, not {missing}.")
    counted = [
        {"method": method, "seed": seed, "setting": setting, **record}
        for setting, record in zip(candidates, records, strict=True)
        if record is not None and record["chosen"]
    ]
    if not counted:
        raise RuntimeError(f"`settings` of {method!r}, seed {seed}, must have one whose epochs count, got none.")
    return max(counted, key=lambda record: float(record["chosen"]["validation"]))


def test(plan: Plan, method: str, seed: int) -> Path:
    """Evaluate the selected training of a method and seed on the test part, once, and return the folder."""
    run = plan.test_run(method, seed, choose(plan, method, seed)["setting"])
    plan.tester().run(run)
    return plan.tester().run_folder(run)


def make_results(plan: Plan, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Test all methods and return the table; methods are compared with and without Normal Guidance."""
    # the test starts when all selections are made
    chosen = {method: {seed: choose(plan, method, seed) for seed in seeds} for method in methods}
    rows = {method: {seed: read_rows(test(plan, method, seed)) for seed in seeds} for method in methods}
    labels = {method: METHODS[method].uses_slice_labels for method in methods}
    pairs = [(f"{name} + NG", name) for name in methods if f"{name} + NG" in methods]
    return {
        "protocol": plan.protocol,
        "selection": "setting and epoch by the best validation bag AUROC, no slice label (rows marked so: see docs)",
        "split": "by patient, test 1/6, validation 1/5 of the rest, stratified by label, one split a seed",
        "settings_tried": {method: len(plan.settings(method)) for method in methods},
        "chosen": chosen,
        **compare_methods(rows, labels, pairs),
    }


def slice_reader(plan: Plan, method: str, seed: int) -> ReadSlices:
    """Return a function that reads the slices of a case before encoding, scaled to [0, 1], and the mask if any."""
    run = plan.run(method, seed, plan.settings(method)[0])
    workflow = open_workflow(run, {**plan.paths, "ckpt_dir": str(plan.folder), "output_dir": str(plan.folder / "log")})
    workflow.initialize()
    table = Path(workflow.parser.get_parsed_content("dataset_dir"), "cohort.json")
    scans = {str(scan["case_id"]): scan for scan in load_cohort(table)}  # `cohort` has their features
    load = Compose(workflow.parser.get_parsed_content("preprocessing").transforms[:-1])

    def read_slices(case: str) -> tuple[np.ndarray, np.ndarray | None]:
        loaded = load(dict(scans[case]))
        images = np.asarray(loaded.get("slices", loaded["image"])[:, 0], dtype=np.float32)
        low, high = np.percentile(images, [0.5, 99.5])
        mask = np.asarray(loaded["reference"][:, 0]) if "reference" in loaded else None
        return np.clip((images - low) / max(high - low, 1e-6), 0, 1), mask

    return read_slices


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    args = _parse(words)
    logging.disable(logging.INFO)  # hundreds of trainings, each with a line per epoch
    grid, overrides = (
        {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in pairs)}
        for pairs in (args.grid, args.set)
    )
    plan = Plan(args.protocol, args.folder, tuple(args.data), overrides, grid)
    if args.stage != "test":
        runs = [
            plan.run(method, seed, setting)
            for method in args.methods
            for seed in args.seeds
            for setting in plan.settings(method)
        ]
        plan.trainer().run_all(runs, args.jobs, args.part)
    if args.stage != "train":
        result = make_results(plan, args.methods, args.seeds)
        command = f"scripts/reproduce ct_protocol --protocol {args.protocol}"
        provenance = collect_provenance(command, args.seeds, repository=ROOT)
        write_json(args.folder / f"{args.protocol}.json", {**provenance, **result})
        scans = {m: {seed: read_scans(test(plan, m, seed)) for seed in args.seeds} for m in args.methods}
        title = f"{plan.protocol.capitalize()} protocol, {len(args.seeds)} seeds"
        read_slices = slice_reader(plan, args.methods[0], args.seeds[0])
        write_page(args.folder / f"{plan.protocol}.html", make_page(result, scans, title, args.gallery, read_slices))
        print(format_table(result))


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce ct_protocol", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", choices=list(GRIDS), default="published")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["ABMIL", "ABMIL + NG"])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--data", nargs="*", default=[], help="overlays of the data, such as digits or rsna")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="folder of all runs and of the table")
    parser.add_argument("--stage", choices=["train", "test"], help="by default, both in this order")
    parser.add_argument("--grid", nargs="*", default=[], metavar="KEY=[...]", help="values to search instead of all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the config of all runs")
    parser.add_argument("--gallery", type=int, default=2, help="number of best and worst scans per method")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--part", type=parse_part, default=(1, 1), metavar="I/N", help="train part I of N")
    return parser.parse_args(words)
