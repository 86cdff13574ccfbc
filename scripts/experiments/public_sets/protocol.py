"""A public feature set in one command: ``scripts/reproduce rsna_ich``, ``camelyon16``, ``panda``, ``camelyon17_aem``.

It says what it fetches, with size, revision and license; fetches it from the Hugging Face hub; writes ``cohort.csv``;
trains and tests the methods by a study for each seed; and prints the values beside the published ones. The test part is
that of the set; a seeded fifth of the training patients is the validation part. Whatever was interrupted continues when
the command is given again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.workflows import RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import (
    FoldPlan,
    Predictions,
    Study,
    StudyMethod,
    StudyOptions,
    Task,
    TrainingSettings,
    collect_provenance,
    parse_methods,
)
from monai_mil_ext.data import CohortColumns, load_cohort, study_columns
from monai_mil_ext.utils import RESEARCH_USE, write_json

from .cohort import place_file, read_done, write_cohort
from .hub import HubPlan, check_space, describe, fetch, guess_plan, read_plan
from .sets import SETS, PublicSet
from .table import HEADS, beside, make_rows, published_rows, test_values

__all__ = ["main", "obtain", "parse", "run_studies"]

LARGE = 1e9  # bytes that are fetched without a question
SEEDS = (0, 1, 2, 3, 4)
VAL_FRACTION = 0.2
NOTE = (
    "Mean ± population sd over {seeds} seeds, which draw weights, batches and the validation part ({val:.0%} of the "
    "training patients). Test part of the set; features {encoder}, revision {revision}. The epoch with the lowest "
    "validation loss is tested; no setting was chosen on this set."
)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("--encoder", help="encoder of the features; by default the first of the set")
    parser.add_argument("--methods", help="methods of the study, separated by commas")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--epochs", type=int, help="number of epochs of a training")
    parser.add_argument("--revision", help="commit of the data set; by default that of the files here, or the newest")
    parser.add_argument("--data", type=Path, help="folder of the data; by default runs/public_sets/NAME/data")
    parser.add_argument("--folder", type=Path, help="folder of the studies; by default runs/public_sets/NAME")
    parser.add_argument("--result", type=Path, help="file of the table; by default docs/results/public_NAME.json")
    parser.add_argument("--endpoint", help="address of a mirror of the hub")
    parser.add_argument("--num_samples", type=int, default=1000, help="bootstrap samples of the reports")
    parser.add_argument("--jobs", type=int, help="number of processes; by default as many as shorten the study")
    parser.add_argument("--dry_run", action="store_true", help="only say what would be fetched")
    parser.add_argument("--yes", action="store_true", help="fetch large files without a question")
    args = parser.parse_args(words)
    args.encoder = args.encoder or SETS[args.name].encoders[0]
    if args.encoder not in SETS[args.name].encoders:
        parser.error(f"--encoder must be one of {', '.join(SETS[args.name].encoders)}, got {args.encoder}")
    args.folder = args.folder or RUNS / "public_sets" / args.name
    args.data = args.data or args.folder / "data"
    args.result = args.result or RESULTS / f"public_{args.name}.json"
    return args


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    args = parse(words)
    try:
        table = _run(args)
    except (RuntimeError, OSError, ValueError) as error:
        sys.exit(f"{args.name}: {error}")
    print(table)


def _run(args: argparse.Namespace) -> str:
    public_set = SETS[args.name]
    if args.dry_run:
        return _dry_run(public_set, args)
    plan = read_plan(public_set, args.encoder, args.data, args.revision, args.endpoint)
    print(describe(plan, public_set))
    obtain(public_set, plan, args)
    table, notes = write_cohort(public_set, args.encoder, args.data)
    print(*notes, sep="\n")
    started = time.perf_counter()
    rows = run_studies(public_set, table, notes, args)
    write_json(args.result, _result(args, plan, rows, time.perf_counter() - started))
    return beside(rows, published_rows(args.name), public_set.instances)


def _dry_run(public_set: PublicSet, args: argparse.Namespace) -> str:
    try:
        plan = read_plan(public_set, args.encoder, args.data, args.revision, args.endpoint)
    except RuntimeError as error:
        return f"{describe(guess_plan(public_set, args.encoder), public_set)}\n{error}"
    return describe(plan, public_set)


def obtain(public_set: PublicSet, plan: HubPlan, args: argparse.Namespace) -> None:
    """Fetch and unpack the files that are not here, after a question if they are large."""
    done = read_done(args.data)
    todo = [file for file in plan.files if file.name not in done]
    if not todo:
        return
    check_space(plan, args.data, list(done))
    if sum(file.size for file in todo) > LARGE and not args.yes:
        _ask()
    for file in todo:
        place_file(public_set, args.encoder, file, fetch(plan, file, args.data, args.endpoint), args.data)


def _ask() -> None:
    if not sys.stdin.isatty():
        raise RuntimeError("the download is large: give --yes.")
    if input("fetch it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise RuntimeError("nothing was fetched.")


def run_studies(
    public_set: PublicSet, table: Path, notes: Sequence[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run a study for each seed, and return a row for each method."""
    has_labels = public_set.layout == "torchmil"
    columns = CohortColumns(instance_label="instance_label" if has_labels else None)
    columns, labels, more = study_columns(table, columns)
    items = load_cohort(table, columns)
    methods = [
        _with_settings(method, public_set.training) for method in parse_methods(args.methods or public_set.methods)
    ]
    settings = {**public_set.training, **({"epochs": args.epochs} if args.epochs else {})}
    by_method: dict[str, list[Mapping[str, float]]] = {method.name: [] for method in methods}
    for seed in args.seeds:
        folder = args.folder / args.encoder / f"seed_{seed}"
        study = Study(
            items,
            folder,
            Task(labels.kind, labels.class_names),
            methods,
            FoldPlan(val_fraction=VAL_FRACTION, seed=seed),
            TrainingSettings(**settings, seed=seed),
            options=StudyOptions(
                title=f"{public_set.title}, seed {seed}", num_samples=args.num_samples, notes=[*notes, *more]
            ),
        )
        study.run(jobs=args.jobs)
        for name, values in by_method.items():
            values.append(test_values(Predictions.read(folder / "predictions" / f"{name}.csv")))
    return make_rows(by_method)


def _with_settings(method: StudyMethod, training: Mapping[str, Any]) -> StudyMethod:
    """Return a method whose own settings of the training do not replace those of the set."""
    return replace(method, settings={name: v for name, v in method.settings.items() if name not in training})


def _result(
    args: argparse.Namespace, plan: HubPlan, rows: Sequence[Mapping[str, Any]], seconds: float
) -> dict[str, Any]:
    note = NOTE.format(seeds=len(args.seeds), val=VAL_FRACTION, encoder=args.encoder, revision=plan.revision)
    return {
        **collect_provenance(f"scripts/reproduce {args.name}", args.seeds, seconds=seconds, repository=ROOT),
        "use": RESEARCH_USE,
        "data": {"repo": plan.repo, "revision": plan.revision, "license": plan.license, "encoder": args.encoder},
        "heads": {key: head.format(instance=SETS[args.name].instances) for key, head in HEADS.items()},
        "note": note,
        "rows": rows,
    }
