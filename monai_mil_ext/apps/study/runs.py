"""Runner of a study: one folder a run, resumable, several runs side by side."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from monai_mil_ext.utils import atomic_path, check_positive, write_json
from monai_mil_ext.utils.exceptions import root_cause

__all__ = ["Run", "RunsFailedError", "StudyRunner", "parse_part", "write_line"]

RECORD, ERROR = "run.json", "error.txt"
KILLED = "its process was killed"
SHOWN = 20  # failures in the message


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        name: name of its folder in the study's folder; ``/`` makes folders in folders.
        settings: everything that decides the result, as JSON; a run is done again if they change.

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
Outcome = dict[str, Any] | str  # a record, or why the run failed


class RunsFailedError(RuntimeError):
    """Error of a study with failed runs; it is raised after all other runs have ended.

    Attributes:
        failures: the reason of each failed run by its name.
    """

    def __init__(self, failures: Mapping[str, str], total: int) -> None:
        self.failures = dict(failures)
        lines = [f"{len(self.failures)} of {total} runs failed; start again to retry them:"]
        lines += [f"  {name}: {reason}" for name, reason in [*self.failures.items()][:SHOWN]]
        super().__init__("\n".join(lines))


def write_line(text: str) -> None:
    """Print a line at once, also where the output is a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class StudyRunner:
    """Runner that does each run once and keeps its record in ``run.json`` of the run's folder.

    ``run.json`` holds ``settings`` and, once the run is finished, ``record``: what ``work`` returned, with
    ``wall_seconds``, ``cpu_seconds`` and ``date`` added. It is written atomically.

    - A finished run with the same settings is not done again.
    - A run that was interrupted is started again in its folder as it is, so that ``work`` can resume from its own
      checkpoints.
    - A run that fails leaves the traceback in ``error.txt``, and is done again when the study is started again.
    - A run with other settings is started in an empty folder: the old one, with everything in it, is removed.

    Args:
        folder: folder of all runs.
        work: function that does a run in its folder and returns its record as JSON. For more than one process it must
            be importable (a function of a module, or a ``functools.partial`` of one).
        threads: number of PyTorch threads of a run; None leaves it unchanged.

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

    def __init__(self, folder: str | os.PathLike[str], work: Work, threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.work = work
        self.threads = threads

    def run_folder(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / run.name

    def read(self, run: Run) -> dict[str, Any] | None:
        """Return the record of a finished run; None if it is not finished or was done with other settings."""
        content = self._read_file(run)
        if content is None or content["settings"] != _as_json(run.settings):
            return None
        return content.get("record")

    def read_all(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Return the records of finished runs.

        Raises:
            RuntimeError: if a run is not finished or was done with other settings.
        """
        records = [self.read(run) for run in runs]
        missing = [run.name for run, record in zip(runs, records, strict=True) if record is None]
        if missing:
            raise RuntimeError(f"every run must be finished, but {len(missing)} are not, first {missing[:5]}.")
        return [record for record in records if record is not None]

    def run(self, run: Run) -> dict[str, Any]:
        """Do a run unless it is finished, and return its record."""
        record = self.read(run)
        return self._do(run) if record is None else record

    def run_all(
        self,
        runs: Sequence[Run],
        jobs: int = 1,
        part: tuple[int, int] = (1, 1),
        report: Callable[[str], None] | None = write_line,
    ) -> list[dict[str, Any]]:
        """Do all runs that are not finished, and return the records in the order of ``runs``.

        A failed run, or a process that is killed, does not end the other runs.

        Args:
            runs: the runs; their names must differ.
            jobs: number of processes; with 1, runs are done in this process.
            part: ``(i, n)`` does part i of n, from 1 to n, for instance one on each of n machines with a shared folder.
            report: function that is called with a line of progress; None for silence.

        Raises:
            ValueError: if two runs share a name, or the part is out of range.
            RunsFailedError: if runs failed, after all others have ended.
        """
        check_positive(jobs=jobs)
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
        for done, (run, outcome) in enumerate(self._outcomes(todo, jobs), len(records) + 1):
            if isinstance(outcome, str):
                failures[run.name] = outcome
                line = f"failed, {outcome}"
            else:
                records[run.name] = outcome
                line = f"done in {outcome['wall_seconds']:.0f} s"
            if report is not None:
                report(f"{run.name}: {line} ({done} of {len(chosen)})")
        if failures:
            raise RunsFailedError(failures, len(chosen))
        return [records[run.name] for run in chosen]

    def _outcomes(self, runs: Sequence[Run], jobs: int) -> Iterator[tuple[Run, Outcome]]:
        if jobs > 1 and len(runs) > 1:
            yield from self._outcomes_of_processes(runs, jobs)
        else:
            yield from ((run, self._attempt(run)) for run in runs)

    def _outcomes_of_processes(self, runs: Sequence[Run], jobs: int) -> Iterator[tuple[Run, Outcome]]:
        finished = set()
        with _process_pool(jobs) as pool:
            futures = {pool.submit(self._attempt, run): run for run in runs}
            for future in as_completed(futures):
                with suppress(BrokenProcessPool):
                    outcome = future.result()
                    finished.add(futures[future].name)
                    yield futures[future], outcome
        # a process was killed, which ends its pool: the rest one by one, so that it is known which run is the cause
        remaining = [run for run in runs if run.name not in finished]
        while remaining:
            with _process_pool(1) as pool:
                killed = False
                while remaining and not killed:
                    run = remaining.pop(0)
                    try:
                        outcome = pool.submit(self._attempt, run).result()
                    except BrokenProcessPool:
                        outcome, killed = KILLED, True
                    yield run, outcome

    def _attempt(self, run: Run) -> Outcome:
        """Do a run, and return why it failed instead of raising, so that the other runs go on."""
        try:
            return self._do(run)
        except Exception as error:
            with atomic_path(self.run_folder(run) / ERROR) as temporary:
                temporary.write_text(traceback.format_exc())
            return _reason(error)

    def _do(self, run: Run) -> dict[str, Any]:
        folder, settings = self.run_folder(run), _as_json(run.settings)
        previous = self._read_file(run)
        if previous is not None and previous["settings"] != settings:
            shutil.rmtree(folder)
        write_json(folder / RECORD, {"settings": settings})
        (folder / ERROR).unlink(missing_ok=True)
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
        content = self._read_file(run)
        assert content is not None  # noqa: S101 - for the type checker: it was just written
        return dict(content["record"])  # as a later call reads it, so that both are equal

    def _read_file(self, run: Run) -> dict[str, Any] | None:
        path = self.run_folder(run) / RECORD
        return json.loads(path.read_text()) if path.exists() else None


def parse_part(text: str) -> tuple[int, int]:
    """Parse ``i/n``, part i of n, as ``argparse`` wants it of a type.

    Raises:
        ValueError: if it is anything else.

    Example:
        >>> parse_part("2/4")
        (2, 4)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"`part` must be i/n with i from 1 to n, got {text!r}.")
    return int(match[1]), int(match[2])


@contextmanager
def _process_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes, which ends at once when the caller is interrupted."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))  # a fork would share CUDA and thread pools
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _reason(error: Exception) -> str:
    """Return the first line of the innermost cause: MONAI wraps what a component raises."""
    cause = root_cause(error)
    text = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {text[0]}" if text else type(cause).__name__


def _as_json(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))
