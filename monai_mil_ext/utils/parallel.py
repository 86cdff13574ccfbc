"""Tasks in this process, in several processes, or on the workers of a Dask cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from threading import Thread
from typing import Any

from .checks import check_count, check_positive
from .dask_tasks import KILLED, check_scheduler, outcomes_on_dask
from .remote.object_path import as_path

__all__ = ["run_tasks"]

Work = Callable[[Any], Any]
_work: Work  # of a process of the pool


def run_tasks(
    work: Work,
    tasks: Sequence[Any],
    jobs: int | None = 1,
    scheduler: str | None = None,
    gpus: int = 0,
    folder: str | os.PathLike[str] = ".",
    if_killed: Any = None,
) -> Iterator[tuple[int, Any]]:
    """Call ``work`` with each task, and yield the index of a task with its result as soon as it is done.

    A task whose process is killed is done again, so its files must be written atomically. If its process is killed even
    where it is the only task, it is the cause, and all others go on. An error of ``work`` ends the iteration.

    Args:
        work: function of a task. With several processes it must be importable: a function of a module, or a
            ``functools.partial`` of such a function. It is sent to each process once, with all that it holds.
        tasks: the tasks; they are sent one by one.
        jobs: number of processes; with 1 and no ``scheduler``, tasks are done in this process. ``None`` is one per GPU
            or core.
        scheduler: ``"local"`` for Dask workers on this machine, ``jobs`` of them, or the address of a Dask scheduler,
            such as ``"tcp://host:8786"``, whose workers do the tasks; ``None`` uses no Dask.
        gpus: number of GPUs of a task, as the resource ``GPU`` of Dask workers.
        folder: folder of the results, which all workers must have at the same path, or its address in an object store.
        if_killed: result of a task whose process is killed each time; ``None`` raises an error instead.

    Raises:
        ValueError: when no worker can do the tasks: it has too few GPUs, several threads, other versions, or another
            folder.
        RuntimeError: when the process of a task is killed each time, unless ``if_killed`` is given.
        OptionalImportError: when ``scheduler`` is given and Dask is not installed.

    Example:
        >>> [*run_tasks(abs, [-1, 2])]
        [(0, 1), (1, 2)]
    """
    if jobs is not None:
        check_positive(jobs=jobs)
    check_count(gpus=gpus)
    if scheduler is not None:
        check_scheduler(scheduler)
        outcomes = outcomes_on_dask(work, tasks, scheduler, jobs, gpus, as_path(folder)) if tasks else iter(())
        return _without_killed(outcomes, if_killed)
    if gpus:
        raise ValueError(f"`gpus` must be 0 without `scheduler`, which knows the workers with GPUs, got {gpus}.")
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(tasks))
    if jobs > 1:
        return _without_killed(_outcomes_of_processes(work, tasks, jobs), if_killed)
    return ((index, work(task)) for index, task in enumerate(tasks))


def _without_killed(outcomes: Iterator[tuple[int, Any]], if_killed: Any) -> Iterator[tuple[int, Any]]:
    for index, outcome in outcomes:
        if outcome is KILLED and if_killed is None:
            raise RuntimeError(f"the process of task {index + 1} was killed each time that it was started.")
        yield index, if_killed if outcome is KILLED else outcome


def _outcomes_of_processes(work: Work, tasks: Sequence[Any], jobs: int) -> Iterator[tuple[int, Any]]:
    left = dict(enumerate(tasks))
    with _process_pool(jobs, work) as pool:
        futures = {}
        with suppress(BrokenProcessPool):
            futures = {pool.submit(_call, task): index for index, task in left.items()}
        for future in as_completed(futures):
            with suppress(BrokenProcessPool):
                result = future.result()
                del left[futures[future]]
                yield futures[future], result
    # a killed process breaks its pool: do the rest one by one, to identify the task that is the cause
    remaining = [*left.items()]
    while remaining:
        with _process_pool(1, work) as pool:
            killed = False
            while remaining and not killed:
                index, task = remaining.pop(0)
                try:
                    outcome = pool.submit(_call, task).result()
                except BrokenProcessPool:
                    outcome, killed = KILLED, True
                yield index, outcome


@contextmanager
def _process_pool(jobs: int, work: Work) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of new processes, which stops at once if the caller is interrupted."""
    # a fork would share CUDA and thread pools
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start, (os.getpid(), work))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(parent: int, work: Work, interval: float = 1.0) -> None:
    """Keep the work, and start a thread that ends this process once its parent has been killed."""
    global _work  # noqa: PLW0603 - one per process
    _work = work

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _call(task: Any) -> Any:
    return _work(task)
