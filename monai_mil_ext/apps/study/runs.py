"""Runner of a study: one folder per run, resumable, with several runs in parallel."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from monai_mil_ext.utils import atomic_path, run_tasks, write_json
from monai_mil_ext.utils.exceptions import hide_absolute_paths, root_cause, traceback_text
from monai_mil_ext.utils.remote import StoreError, WorkFolder

__all__ = ["Run", "RunsFailedError", "StudyRunner", "parse_part", "write_line"]

RECORD, ERROR = "run.json", "error.txt"
KILLED = "its process was killed"
SHOWN = 20  # number of failures in the message


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        name: path of its folder, relative to the folder of the study.
        settings: everything that determines the result, as JSON; the run is repeated if they change.

    Raises:
        ValueError: if the name leads out of the study's folder.

    Example:
        >>> Run("abmil/seed_1", {"seed": 1, "epochs": 20}).name
        'abmil/seed_1'
    """

    name: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the name."""
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"`name` must be a relative path inside the study's folder, got {self.name!r}.")


Work = Callable[[Run, Path], Mapping[str, Any]]
Outcome = dict[str, Any] | str  # a record, or the reason of a failure


class RunsFailedError(RuntimeError):
    """Error of a study with failed runs; it is raised after all other runs have ended.

    Attributes:
        failures: reason of each failure, by the name of the run.
    """

    def __init__(self, failures: Mapping[str, str], total: int) -> None:
        self.failures = dict(failures)
        lines = [f"{len(self.failures)} of {total} runs failed; start again to retry them:"]
        lines += [f"  {name}: {reason}" for name, reason in [*self.failures.items()][:SHOWN]]
        super().__init__("\n".join(lines))


def write_line(text: str) -> None:
    """Print a line and flush the output, so that it appears at once even in a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class StudyRunner:
    """Runner that executes each run once and saves its record as ``run.json`` in the folder of the run.

    ``run.json`` contains ``settings`` and, once the run is finished, ``record``: the result of ``work`` with
    ``wall_seconds``, ``cpu_seconds`` and ``date``. It is written atomically.

    - A finished run with the same settings is skipped.
    - An interrupted run is started again in its folder, whose files are kept, so that ``work`` can resume from its
      checkpoints.
    - A failed run leaves its traceback, without absolute paths, in ``error.txt``, and is repeated when the study is
      started again.
    - A run whose settings have changed is started in an empty folder; the old folder is removed with its files.

    With an address, runs are made on this machine, and the process of a run uploads its folder when it begins and when
    it ends, ``run.json`` last: a run whose record is in the store is finished, and any other is done again.

    Args:
        folder: folder of all runs, or its address in an object store.
        work: function that executes a run in its folder and returns its record as JSON. With several processes it must
            be importable: a function of a module, or a ``functools.partial`` of such a function.
        threads: number of PyTorch threads of a run; None leaves it unchanged.
        redact: function that removes names of files from the text of an error; importable, as ``work``.
        store: folder that may have an address, in which ``folder`` lies; by default ``folder`` itself.

    Example:
        >>> runner = StudyRunner("runs", lambda run, folder: {"square": run.settings["x"] ** 2})
        >>> runs = [Run(f"x_{x}", {"x": x}) for x in (2, 3)]
        >>> [record["square"] for record in runner.run_all(runs)]
        x_2: done in 0 s (1 of 2)
        x_3: done in 0 s (2 of 2)
        [4, 9]
        >>> runner.run(runs[0]) == runner.read(runs[0])
        True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        work: Work,
        threads: int | None = None,
        redact: Callable[[str], str] = str,
        store: WorkFolder | None = None,
    ) -> None:
        self.store = WorkFolder(folder) if store is None else store
        self.folder = self.store.path if store is None else Path(folder)
        self.work = work
        self.threads = threads
        self.redact = redact

    def run_folder(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / run.name

    def read(self, run: Run) -> dict[str, Any] | None:
        """Return the record of a finished run, or None if it is not finished or had other settings."""
        content = self._read_file(run)
        if content is None or content["settings"] != _as_json(run.settings):
            return None
        return content.get("record")

    def read_all(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Return the records of finished runs.

        Raises:
            RuntimeError: if a run is not finished or had other settings.
        """
        records = [self.read(run) for run in runs]
        missing = [run.name for run, record in zip(runs, records, strict=True) if record is None]
        if missing:
            raise RuntimeError(f"every run must be finished, but {len(missing)} are not, first {missing[:5]}.")
        return [record for record in records if record is not None]

    def run(self, run: Run) -> dict[str, Any]:
        """Execute a run unless it is finished, and return its record."""
        record = self.read(run)
        return self._execute(run) if record is None else record

    def run_all(
        self,
        runs: Sequence[Run],
        jobs: int | None = 1,
        part: tuple[int, int] = (1, 1),
        report: Callable[[str], None] | None = write_line,
        scheduler: str | None = None,
        gpus: int = 0,
    ) -> list[dict[str, Any]]:
        """Execute all runs that are not finished, and return the records in the order of ``runs``.

        A failed run or a killed process does not stop the other runs.

        Args:
            runs: the runs; their names must differ.
            jobs: number of processes; with 1, runs are executed in this process. ``None`` is one per GPU or core.
            part: ``(i, n)`` executes part i of n, with i from 1 to n, for example on n machines with a shared folder.
            report: function that is called with each line of progress; None for no report.
            scheduler: ``"local"`` or the address of a Dask scheduler, whose workers execute the runs, see
                :py:func:`monai_mil_ext.utils.run_tasks`; None uses no Dask.
            gpus: number of GPUs of a run, as the resource ``GPU`` of Dask workers.

        Raises:
            ValueError: if two runs share a name, the part is out of range, or no worker can execute a run.
            RunsFailedError: if runs failed; it is raised after all others have ended.
        """
        names = [run.name for run in runs]
        if len(set(names)) < len(names):
            raise ValueError(
                f"`runs` must have different names, got {sorted({n for n in names if names.count(n) > 1})[:5]}."
            )
        number, count = part
        if not 1 <= number <= count:
            raise ValueError(f"`part` must be (i, n) with i from 1 to n, got {part!r}.")
        chosen = list(runs)[number - 1 :: count]
        records = {run.name: record for run in chosen if (record := self.read(run)) is not None}
        failures: dict[str, str] = {}
        todo = [run for run in chosen if run.name not in records]
        shared = self.store.place(self.folder)
        outcomes = run_tasks(self._attempt, todo, jobs, scheduler, gpus, shared, if_killed=KILLED)
        for done, (index, outcome) in enumerate(outcomes, len(records) + 1):
            run = todo[index]
            if isinstance(outcome, str):
                failures[run.name] = outcome
                line = f"failed, {outcome}"
            else:
                self._take_over(run)
                records[run.name] = outcome
                line = f"done in {outcome['wall_seconds']:.0f} s"
            if report is not None:
                report(f"{run.name}: {line} ({done} of {len(chosen)})")
        if failures:
            raise RunsFailedError(failures, len(chosen))
        return [records[run.name] for run in chosen]

    def _attempt(self, run: Run) -> Outcome:
        """Execute a run, and return the reason of a failure instead of raising, so that the other runs continue."""
        try:
            return self._execute(run)
        except Exception as error:
            with atomic_path(self.run_folder(run) / ERROR) as temporary:
                temporary.write_text(self.redact(traceback_text(error)))
            with suppress(StoreError):  # it may be the cause
                self._push(run)
            return self.redact(_reason(error))

    def _execute(self, run: Run) -> dict[str, Any]:
        folder, settings = self.run_folder(run), _as_json(run.settings)
        previous = self._read_file(run)
        if previous is not None and previous["settings"] != settings:
            shutil.rmtree(folder)
        write_json(folder / RECORD, {"settings": settings})
        (folder / ERROR).unlink(missing_ok=True)
        self._push(run)  # before the files of a run with other settings are replaced, their record is
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        wall, cpu = time.perf_counter(), time.process_time()
        result = self.work(run, folder)
        times = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        record = {
            **result,
            **{key: round(value, 2) for key, value in times.items()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / RECORD, {"settings": settings, "record": record})
        self._push(run)
        content = self._read_file(run)
        assert content is not None  # noqa: S101 - for the type checker: it was just written
        return dict(content["record"])  # read from the file, so that later calls return an equal record

    def _push(self, run: Run) -> None:
        if self.store.address is not None:
            self.store.push(self.run_folder(run).relative_to(self.store.path))

    def _take_over(self, run: Run) -> None:
        """Note or fetch the files of a run that another process has uploaded."""
        if self.store.address is not None:
            part = self.run_folder(run).relative_to(self.store.path)
            if self.read(run) is None:
                self.store.pull(part)
            else:
                self.store.note_sent(part)

    def _read_file(self, run: Run) -> dict[str, Any] | None:
        path = self.run_folder(run) / RECORD
        return json.loads(path.read_text()) if path.exists() else None


def parse_part(text: str) -> tuple[int, int]:
    """Parse ``i/n`` (part i of n), for use as a ``type`` of ``argparse``.

    Raises:
        ValueError: if ``text`` has another form, or i is not from 1 to n.

    Example:
        >>> parse_part("2/4")
        (2, 4)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"`part` must be i/n with i from 1 to n, got {text!r}.")
    return int(match[1]), int(match[2])


def _reason(error: Exception) -> str:
    """Return the first line of the innermost cause, since MONAI wraps the errors of components."""
    cause = root_cause(error)
    text = hide_absolute_paths(cause, str(cause)).strip().splitlines()
    return f"{type(cause).__name__}: {text[0]}" if text else type(cause).__name__


def _as_json(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))
