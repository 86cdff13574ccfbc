"""Trains methods over seeds and settings, chooses by validation, tests once: ``python -m scripts.protocol --help``.

Every run is a folder with ``run.json``; one that is there is not run again, so a stopped search goes on where it was (a
stopped run at its last epoch), and parts of it can run side by side (``--stage train --methods ABMIL --seeds 2001``).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from monai.bundle import ConfigWorkflow
from monai.transforms import Compose

from monai_mil_ext.utils import write_json

from .methods import GRIDS, METHODS, SEEDS, settings
from .report import Scan, page, write_page
from .report_figures import read_answers
from .table import evaluation, read_rows, table_text

__all__ = ["Plan", "choose", "main", "test", "train"]


class Plan(NamedTuple):
    """What all runs of a search share.

    Attributes:
        protocol: name of the way to train, ``published`` or ``modern``.
        folder: of all runs.
        data: overlays of the data, between ``train.yaml`` and ``protocol.yaml``.
        overrides: of the configs; they win over a method's and are the same for all.
        grid: values to search instead of the protocol's.
    """

    protocol: str
    folder: Path
    data: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = {}
    grid: Mapping[str, Sequence[float]] | None = None

    def settings(self, method: str) -> list[dict[str, float]]:
        """Settings of ``method``, those of ``grid`` where it has a key."""
        allowed = self.grid or {}
        found = settings(self.protocol, method)
        return [one for one in found if all(one[key] in values for key, values in allowed.items() if key in one)]

    def run_folder(self, method: str, seed: int, setting: Mapping[str, float]) -> Path:
        """Where a run is: ``protocol/method/seed/setting``."""
        words = "_".join(f"{key}-{value:g}" for key, value in setting.items())
        return self.folder / self.protocol / method.replace(" + ", "_").replace(" ", "_") / str(seed) / words

    def workflow(self, method: str, seed: int, setting: Mapping[str, float], *more: str) -> ConfigWorkflow:
        """The bundle, set up for a run; ``more`` overlays go on top."""
        names = ("train", *self.data, "protocol", self.protocol, *METHODS[method].configs, *more)
        folder = self.run_folder(method, seed, setting)
        return ConfigWorkflow(
            [f"configs/{name}.yaml" for name in names],
            workflow_type="train",
            logging_file=False,
            **{
                **METHODS[method].overrides,
                **setting,
                **self.overrides,
                "seed": seed,
                "ckpt_dir": str(folder),
                "output_dir": str(folder / "test" if more else folder / "log"),
            },
        )


def train(plan: Plan, method: str, seed: int, setting: Mapping[str, float]) -> dict[str, Any]:
    """The record of a finished run: what it scored on validation, and when."""
    record = plan.run_folder(method, seed, setting) / "run.json"
    if not record.exists():
        start = time.perf_counter()
        workflow = plan.workflow(method, seed, setting)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        epochs = json.loads((record.parent / "epochs.json").read_text())
        seconds = round(time.perf_counter() - start, 1)
        summary = {"chosen_by": epochs["metric"], "chosen": epochs["chosen"], "num_epochs": len(epochs["epochs"])}
        write_json(record, {"method": method, "seed": seed, "setting": setting, **summary, "wall_seconds": seconds})
    return json.loads(record.read_text())


def choose(plan: Plan, method: str, seed: int) -> dict[str, Any]:
    """The record of the setting with the best validation value of one seed; the first of equal ones.

    Raises:
        RuntimeError: when a run of the search is not there yet, or no setting has an epoch that counts.
    """
    files = [plan.run_folder(method, seed, setting) / "run.json" for setting in plan.settings(method)]
    missing = [file.parent.name for file in files if not file.exists()]
    if missing:
        raise RuntimeError(f"every setting of {method!r}, seed {seed}, must be trained before a choice, not {missing}.")
    records = [record for record in (json.loads(file.read_text()) for file in files) if record["chosen"]]
    if not records:
        raise RuntimeError(f"`settings` of {method!r}, seed {seed}, must have one whose epochs count, got none.")
    return max(records, key=lambda record: record["chosen"]["validation"])


def test(plan: Plan, method: str, seed: int) -> Path:
    """Folder of what the chosen run of a method and seed answers on the test part; made where it is not there."""
    chosen = choose(plan, method, seed)
    folder = plan.run_folder(method, seed, chosen["setting"]) / "test"
    if not (folder / "report.json").exists():
        workflow = plan.workflow(method, seed, chosen["setting"], "evaluate", "held_out")
        workflow.initialize()
        workflow.run()
    return folder


def results(plan: Plan, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The table of all methods, everything tested; a method is compared with its own form without Normal Guidance."""
    for method in methods:
        for seed in seeds:
            choose(plan, method, seed)  # nothing is tested before everything is chosen
    rows = {method: {seed: read_rows(test(plan, method, seed)) for seed in seeds} for method in methods}
    chosen = {method: {seed: choose(plan, method, seed) for seed in seeds} for method in methods}
    named = {method: METHODS[method].uses_slice_labels for method in methods}
    pairs = [(f"{name} + NG", name) for name in methods if f"{name} + NG" in methods]
    return {
        "protocol": plan.protocol,
        "selection": "setting and epoch by the best validation scan AUROC, no slice label (rows marked so: see docs)",
        "split": "by patient, test 1/6, validation 1/5 of the rest, stratified by label, one split a seed",
        "settings_tried": {method: len(plan.settings(method)) for method in methods},
        "chosen": chosen,
        **evaluation(rows, named, pairs),
    }


def scan_reader(plan: Plan, method: str, seed: int) -> Scan:
    """What gives the slices of a case before the encoder, grey from 0 to 1, and its mask where there is one."""
    workflow = plan.workflow(method, seed, plan.settings(method)[0])
    workflow.initialize()
    cohort = {str(scan["case_id"]): scan for scan in workflow.parser.get_parsed_content("cohort")}
    load = Compose(workflow.parser.get_parsed_content("preprocessing").transforms[:-1])

    def scan(case: str) -> tuple[np.ndarray, np.ndarray | None]:
        loaded = load(dict(cohort[case]))
        images = np.asarray(loaded.get("slices", loaded["image"])[:, 0], dtype=np.float32)
        low, high = np.percentile(images, [0.5, 99.5])
        mask = np.asarray(loaded["reference"][:, 0]) if "reference" in loaded else None
        return np.clip((images - low) / max(high - low, 1e-6), 0, 1), mask

    return scan


def _write_report(
    plan: Plan, methods: Sequence[str], seeds: Sequence[int], found: dict[str, Any], gallery: int
) -> None:
    answers = {method: {seed: read_answers(test(plan, method, seed)) for seed in seeds} for method in methods}
    title = f"{plan.protocol.capitalize()} protocol, {len(seeds)} seeds"
    scan = scan_reader(plan, methods[0], seeds[0])
    write_page(plan.folder / f"{plan.protocol}.html", page(found, answers, title, gallery, scan))


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line, in the bundle's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=list(GRIDS), default="published")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["ABMIL", "ABMIL + NG"])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--data", nargs="*", default=[], help="overlays of the data, such as digits or rsna_ich")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="of all runs and of the table")
    parser.add_argument("--stage", choices=["train", "test"], help="both, one after the other, if not given")
    parser.add_argument(
        "--grid", nargs="*", default=[], metavar="KEY=[...]", help="values to search, of those there are"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the config, for all runs"
    )
    parser.add_argument("--gallery", type=int, default=2, help="best and worst scans a method on the page")
    args = parser.parse_args(words)
    grid, overrides = (
        {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in given)}
        for given in (args.grid, args.set)
    )
    plan = Plan(args.protocol, args.folder, tuple(args.data), overrides, grid)
    if args.stage != "test":
        for method in args.methods:
            for seed in args.seeds:
                for setting in plan.settings(method):
                    print(method, seed, setting, train(plan, method, seed, setting)["chosen"], flush=True)
    if args.stage != "train":
        found = results(plan, args.methods, args.seeds)
        write_json(args.folder / f"{args.protocol}.json", found)
        _write_report(plan, args.methods, args.seeds, found, args.gallery)
        print(table_text(found))


if __name__ == "__main__":
    logging.disable(logging.INFO)  # of hundreds of runs, each with a line an epoch
    main()
