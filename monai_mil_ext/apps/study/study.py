"""Study: from the items of a cohort to out-of-fold predictions, models and a report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from monai_mil_ext.apps.check import CheckSettings, check_study_items
from monai_mil_ext.data import CohortSplits
from monai_mil_ext.utils import check_positive, load_json, write_csv, write_json
from monai_mil_ext.utils.remote import WorkFolder

from .clinical import Clinical
from .external import evaluate_external, remove_outdated
from .folds import FoldPlan
from .methods import StudyMethod, parse_methods
from .outputs import bin_note, fold_tasks
from .pictures.case_attention import Draw
from .provenance import OF_STUDIES, PACKAGES, check_packages, collect_provenance, command_of_process
from .report.cohort_report import read_left_out
from .results import CHECKED, StudyResults
from .runs import Run, RunsFailedError, StudyRunner, write_line
from .selection import Selection
from .tasks import Task
from .training import TrainingSettings, setting_names
from .work import StudyWork

__all__ = ["Study", "StudyOptions"]

SPLITS, STUDY, LEFT_OUT = "splits.json", "study.json", "left_out.csv"


@dataclass(frozen=True)
class StudyOptions:
    """Options of the report and the models of a study.

    Args:
        title: heading of the report.
        num_samples: number of bootstrap samples.
        seed: seed of the bootstrap.
        refit: whether each method is also trained on all cases, for the model that is written; otherwise the model is
            the ensemble of the networks of all folds.
        tracking_uri: address of the MLflow server, or folder, to which the results are logged; ``None`` logs nothing.
        notes: sentences for the report, such as those on the columns of the table.
        command: command of the study, for the provenance; by default that of this process.
        draw: function of an item and the attention of its instances that returns pictures for the report, such as
            :py:class:`ScanPictures`; ``None`` shows curves and maps of the attention alone.

    Raises:
        ValueError: when the number of samples is not positive.
    """

    title: str = "Study"
    num_samples: int = 1000
    seed: int = 0
    refit: bool = False
    tracking_uri: str | None = None
    notes: Sequence[str] = ()
    command: str = ""
    draw: Draw | None = None

    def __post_init__(self) -> None:
        check_positive(num_samples=self.num_samples)


class Study:
    """Study of several methods on one cohort: a resumable folder of runs, predictions, models and a report.

    Each method is trained on the training part of each fold, and predicts its validation and its test part. Runs that
    are finished are kept, so that the same call continues after it was killed, and a method or a case that is added
    repeats only what depends on it.

    Args:
        items: items of bag files, see :py:func:`monai_mil_ext.data.load_cohort`.
        folder: folder of the study, or its address in an object store: runs are then made on this machine, and each is
            uploaded when it is finished, see :py:class:`monai_mil_ext.utils.remote.WorkFolder`.
        task: task of the labels.
        methods: methods, or their names for :py:func:`parse_methods`.
        folds: plan of the folds.
        training: settings of the training.
        selection: choice of the settings, on the validation part of each fold.
        clinical: clinical variables beside the bags.
        options: options of the report and the models.

    Raises:
        ValueError: when there are no items, methods are unknown, or the selection has settings that a method lacks.
        OptionalImportError: when a package that the study needs is not installed.

    Example:
        >>> import torch
        >>> from monai_mil_ext.apps.study import Task
        >>> from monai_mil_ext.data import write_bag
        >>> items = []
        >>> for i in range(24):
        ...     write_bag(f"{i}.h5", {"features": torch.randn(5, 4) + i % 2})
        ...     items.append({"case_id": f"c{i}", "patient": f"p{i}", "image": f"{i}.h5", "label": i % 2})
        >>> study = Study(items, "study", Task("classification", ("no", "yes")), "MeanMIL", FoldPlan(2))
        >>> study.runs()[0].name
        'MeanMIL/fold_0'
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        folder: str | os.PathLike[str],
        task: Task,
        methods: str | Sequence[str | StudyMethod | Mapping[str, Any]],
        folds: FoldPlan = FoldPlan(),  # noqa: B008 - frozen
        training: TrainingSettings = TrainingSettings(),  # noqa: B008 - frozen
        selection: Selection = Selection(),  # noqa: B008 - frozen
        clinical: Clinical | None = None,
        options: StudyOptions = StudyOptions(),
    ) -> None:
        if not items:
            raise ValueError("`items` must not be empty, got none.")
        check_packages(tracking=options.tracking_uri is not None)
        self.store = WorkFolder(folder)
        self.folder = self.store.path
        self.options, self.clinical = options, clinical
        self._started = time.perf_counter()
        self._all_items = [dict(item) for item in items]
        self._plan, self._training, self._selection = folds, training, selection
        self._task, self._methods = task, _as_methods(methods)
        for method in self._methods:
            selection.check(setting_names(method))
        self._prepared: StudyWork | None = None
        self._left_out: list[dict[str, str]] = []
        self._check_notes: list[str] = []
        self.times: dict[str, float] = {}

    @property
    def work(self) -> StudyWork:
        """Items that can be used, folds and settings of the runs."""
        if self._prepared is None:
            items = self._usable_items()
            self.clinical = None if self.clinical is None else self.clinical.prepare(items)
            splits = self._split(items)
            train_parts = [splits.select(items, fold, "train") for fold in range(len(splits.folds))]
            task, by_fold = fold_tasks(self._task, items, train_parts)
            self._prepared = StudyWork(items, splits, task, self._methods, self._training, self._selection, by_fold)
        return self._prepared

    def runs(self) -> list[Run]:
        """Return the runs of the study."""
        return self.work.runs()

    def run(
        self, part: tuple[int, int] = (1, 1), jobs: int | None = 1, scheduler: str | None = None, gpus: int = 0
    ) -> Path | None:
        """Execute the runs that are not finished, and write predictions, models and the report once all are.

        A failed run does not end the others; the report names it.

        Args:
            part: ``(i, n)`` executes part i of n, on machines that share the folder; the last one writes the report.
            jobs: number of processes; ``None`` for as many as shorten the study on this machine.
            scheduler: ``"local"`` or the address of a Dask scheduler, whose workers train; ``None`` uses no Dask.
            gpus: number of GPUs of a training, as the resource ``GPU`` of Dask workers.

        Returns:
            The report, or ``None`` if runs of other parts are not finished.

        Raises:
            RunsFailedError: when all runs have failed.
        """
        with self.timed("check and folds"):
            work = self.work
            self._write_settings()
            self.store.push()
        for note in dict.fromkeys(self.options.notes):
            write_line(note)
        runs = work.runs()
        jobs = work.helpful_jobs(len(runs)) if jobs is None and not gpus else jobs
        threads = None if scheduler or jobs in (None, 1) else max(1, torch.get_num_threads() // jobs)
        runner = StudyRunner(self.folder / "runs", work, threads, work.without_names, self.store)
        failures: dict[str, str] = {}
        try:
            progress = _Progress(self._remaining(runner, runs, part))
            runner.run_all(runs, jobs, part, progress, scheduler, gpus)
        except RunsFailedError as error:
            failures = error.failures
            if len(failures) == len(runs):
                raise
        for run in runs:
            if runner.read(run) is None and run.name not in failures:
                self.store.pull(runner.run_folder(run).relative_to(self.folder))  # of other machines, meanwhile
        open_runs = [run for run in runs if runner.read(run) is None and run.name not in failures]
        failures |= {
            run.name: "see its error.txt" for run in open_runs if (runner.run_folder(run) / "error.txt").exists()
        }
        waiting = [run for run in open_runs if run.name not in failures]
        if waiting:
            write_line(f"{len(waiting)} of {len(runs)} runs belong to other parts that are not finished.")
            return None
        report = StudyResults(self, runner, failures).write()
        remove_outdated(self.folder)
        self.store.push()
        return self.store.place(report)

    def evaluate_external(self, items: Sequence[Mapping[str, Any]], name: str, allow_mismatch: bool = False) -> Path:
        """Evaluate the models of the finished study on another cohort, and write the same report of it.

        Networks, thresholds and clinical models stay as they are.

        Args:
            items: items of the cohort, with labels and clinical variables as those of the study.
            name: name of the cohort, and of its folder in ``external``.
            allow_mismatch: whether to evaluate bags of another source, such as of another encoder.

        Raises:
            FileNotFoundError: when the study is not finished.
            SourceMismatchError: when the bags are of another source than those of the training.
        """
        report = evaluate_external(self, items, name, allow_mismatch)
        self.store.push()
        return self.store.place(report)

    def fold_notes(self) -> list[str]:
        """Return the sentences on what can bias the results, and on how the times of events were divided."""
        notes = self._plan.notes(self.work.items, self.work.task, self.work.splits)
        return list(filter(None, [*notes, *self._check_notes, bin_note(self.work.task, not self._task.bin_edges)]))

    @property
    def plan(self) -> FoldPlan:
        """Plan of the folds."""
        return self._plan

    @property
    def check_settings(self) -> CheckSettings:
        """Settings of the check of items; whether encoders may differ was decided when they were loaded."""
        task = self._task
        single = task.kind in ("classification", "ordinal", "regression")
        return CheckSettings(
            "bags",
            task=task.kind if single else None,
            class_names=task.class_names if single and task.class_names else None,
            num_folds=self._plan.num_folds,
            allow_mismatch=True,
        )

    @property
    def left_out(self) -> list[dict[str, str]]:
        """Cases that can't be used, with reasons."""
        return list(self._left_out)

    def provenance(self) -> dict[str, Any]:
        """Return what is needed to reproduce the study."""
        seeds = {"folds": self._plan.seed, "training": self._training.seed, "bootstrap": self.options.seed}
        seconds, packages = time.perf_counter() - self._started, (*PACKAGES, *OF_STUDIES)
        facts = collect_provenance(self.options.command or command_of_process(), [], seconds=seconds, packages=packages)
        times = {name: round(seconds, 1) for name, seconds in self.times.items()}
        return {**facts, "seeds": seeds, "times": times, "num_samples": self.options.num_samples}

    def timed(self, name: str) -> _Timer:
        """Return a context that notes its duration in ``times``, which the report and the last line state."""
        return _Timer(self.times, name)

    def _usable_items(self) -> list[dict[str, Any]]:
        """Check the items, list those that can't be used in ``left_out.csv``, and return the others sorted by case."""
        checked = check_study_items(self._all_items, self.check_settings, self.folder / CHECKED)
        for row in checked.left_out:
            write_line(f"{row['case_id']} is left out: {row['reason']}")
        self._left_out, self._check_notes = [*read_left_out(self.folder), *checked.left_out], checked.notes
        write_csv(self.folder / LEFT_OUT, self._left_out, ("case_id", "reason"))
        return checked.usable

    def _split(self, items: Sequence[Mapping[str, Any]]) -> CohortSplits:
        """Return the folds; those of an earlier call with the same plan change as little as possible."""
        path, plan = self.folder / SPLITS, self._plan_settings()
        if path.exists() and self._earlier().get("folds") == plan:
            splits = self._plan.extend(CohortSplits.read(path), items, self._task)
        else:
            splits = self._plan.split(items, self._task)
        splits.write(path)
        return splits

    def _earlier(self) -> dict[str, Any]:
        """Return the settings of an earlier call."""
        path = self.folder / STUDY
        return dict(load_json(path)) if path.exists() else {}

    def _plan_settings(self) -> dict[str, Any]:
        plan = asdict(self._plan)
        return {**plan, "split_file": plan.get("split_file") is not None}

    def _write_settings(self) -> None:
        """Write what decides the results."""
        settings = {
            "task": asdict(self.work.task),
            "folds": self._plan_settings(),
            "methods": [asdict(method) for method in self._methods],
            "training": asdict(self._training),
            "selection": asdict(self._selection),
            "clinical": None if self.clinical is None else asdict(self.clinical),
            "options": {
                "num_samples": self.options.num_samples,
                "seed": self.options.seed,
                "refit": self.options.refit,
            },
            "notes": [*self.options.notes, *self.fold_notes()],
            "provenance": self.provenance(),
        }
        write_json(self.folder / STUDY, settings)

    def _remaining(self, runner: StudyRunner, runs: Sequence[Run], part: tuple[int, int]) -> int:
        return sum(runner.read(run) is None for run in list(runs)[part[0] - 1 :: part[1]])


@dataclass
class _Timer:
    """Context that notes the seconds of a part of the work."""

    times: dict[str, float]
    name: str
    start: float = field(default_factory=time.perf_counter)

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.times[self.name] = self.times.get(self.name, 0.0) + time.perf_counter() - self.start


class _Progress:
    """Report of finished runs with an estimate of the time that is left."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.perf_counter()
        if total:
            write_line(f"{total} runs to do.")

    def __call__(self, line: str) -> None:
        self.done += 1
        left = self.total - self.done
        seconds = (time.perf_counter() - self.start) / self.done * left
        write_line(f"{line}, about {seconds / 60:.0f} min left" if left and seconds >= 60 else line)


def _as_methods(methods: str | Sequence[str | StudyMethod | Mapping[str, Any]]) -> list[StudyMethod]:
    if isinstance(methods, (str, Mapping)):
        return parse_methods(methods)
    found: list[StudyMethod] = []
    for method in methods:
        found += [method] if isinstance(method, StudyMethod) else parse_methods(method)
    names = [method.name for method in found]
    if not found or len(set(names)) < len(names):
        raise ValueError(f"`methods` must be one or more different methods, got {names}.")
    return found
