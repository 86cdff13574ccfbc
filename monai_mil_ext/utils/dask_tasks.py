"""Tasks on the workers of Dask distributed: of this machine, or of a cluster by the address of its scheduler."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch

from .optional import optional_dependency
from .remote.object_path import is_remote

__all__ = ["KILLED", "check_scheduler", "outcomes_on_dask"]

dask, distributed = optional_dependency("scale", "dask"), optional_dependency("scale", "distributed")
KILLED = object()  # outcome of a task whose worker is killed each time
LOCAL, ADDRESS = "local", r"(tcp|tls|ws|wss|ucx|inproc)://\S+"
TIMEOUT = 20  # s, for the connection to a scheduler
SAME = ("monai-mil-ext", "torch", "monai", "numpy")  # packages whose versions workers must share
Work = Callable[[Any], Any]


def check_scheduler(scheduler: str) -> None:
    """Check the form of the address of a scheduler.

    Raises:
        ValueError: when it is neither ``local`` nor an address.
    """
    if scheduler != LOCAL and not re.fullmatch(ADDRESS, str(scheduler)):
        raise ValueError(f"`scheduler` must be local or an address such as tcp://host:8786, got {scheduler!r}.")


def outcomes_on_dask(
    work: Work, tasks: Sequence[Any], scheduler: str, jobs: int | None, gpus: int, folder: Path
) -> Iterator[tuple[int, Any]]:
    """Yield the index of each task with its result, or ``KILLED``, as soon as it is done.

    Args:
        work: function of a task.
        tasks: the tasks.
        scheduler: ``local``, or the address of a scheduler.
        jobs: number of workers on this machine; those of an address are as many as it has.
        gpus: number of GPUs of a task.
        folder: folder of the results.

    Raises:
        ValueError: when no worker can do the tasks.
        RuntimeError: when the scheduler ends before the tasks.
    """
    with _connect(scheduler, jobs, gpus, len(tasks)) as client:
        _check_workers(client, gpus, folder)
        # the result of a task, so that each worker fetches it once, and Dask makes it again if a worker is lost
        kept = client.submit(_keep, work, pure=False)
        here = str(Path.cwd())

        def outcomes(indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
            resources = {"GPU": gpus} if gpus else None
            futures = {
                client.submit(_call, kept, tasks[index], here, pure=False, resources=resources): index
                for index in indices
            }
            for future in distributed.as_completed(futures, loop=client.loop):
                yield futures[future], _result(future)

        again = []
        for index, outcome in outcomes(range(len(tasks))):
            if outcome is KILLED:
                again.append(index)
            else:
                yield index, outcome
        for index in again:  # alone, so that the task that is the cause is known
            yield from outcomes([index])


def _result(future: Any) -> Any:
    try:
        return future.result()
    except distributed.KilledWorker:
        return KILLED
    except distributed.client.FutureCancelledError as error:
        raise RuntimeError("the scheduler must not end before the tasks; start again to continue.") from error


def _keep(work: Work) -> Work:
    return work


def _call(work: Work, task: Any, folder: str) -> Any:
    """Do a task in the folder from which relative paths start."""
    with chdir(folder):
        return work(task)


@contextmanager
def _connect(scheduler: str, jobs: int | None, gpus: int, num_tasks: int) -> Iterator[Any]:
    """Connect to a scheduler, which is started for ``local``."""
    if scheduler == LOCAL:
        with _local_cluster(jobs, gpus, num_tasks) as cluster, distributed.Client(cluster, set_as_default=False) as c:
            yield c
        return
    try:
        client = distributed.Client(scheduler, timeout=TIMEOUT, set_as_default=False)
    except OSError as error:
        raise ValueError(
            f"`scheduler` must be the address of a running Dask scheduler, got {scheduler!r} ({type(error).__name__})."
        ) from error
    with client:
        yield client


@contextmanager
def _local_cluster(jobs: int | None, gpus: int, num_tasks: int) -> Iterator[Any]:
    """Start a scheduler and workers that only this machine can reach, each with GPUs of its own."""
    available = torch.cuda.device_count()
    if gpus > available:
        raise ValueError(f"`gpus` must be at most the number of GPUs of this machine, {available}, got {gpus}.")
    cores = len(os.sched_getaffinity(0))
    number = min(jobs or cores, available // gpus if gpus else jobs or cores, num_tasks)
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpus else []
    names = names if len(names) >= available else [str(index) for index in range(available)]
    threads = str(max(1, cores // number))

    def worker(index: int) -> dict[str, Any]:
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(names[index * gpus : (index + 1) * gpus])
        options = {"nthreads": 1, "memory_limit": 0, "resources": {"GPU": gpus}, "env": env, "host": "127.0.0.1"}
        return {"cls": distributed.Nanny, "options": {**options, "silence_logs": logging.WARNING, "dashboard": False}}

    address = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    spec = {index: worker(index) for index in range(number)}
    # workers that are no daemons may start the processes of a DataLoader
    config = {"distributed.worker.daemon": False, "distributed.scheduler.allowed-failures": 1}
    with (
        _warnings_only(),
        dask.config.set(config),
        distributed.SpecCluster(workers=spec, scheduler={"cls": distributed.Scheduler, "options": address}) as cluster,
    ):
        yield cluster


@contextmanager
def _warnings_only() -> Iterator[None]:
    """Log warnings of Dask only: the progress would be lost between its messages on connections."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_workers(client: Any, gpus: int, folder: Path) -> None:
    """Refuse workers that would wait forever, give other results, or write them elsewhere."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise ValueError("`scheduler` must have a worker, got none; start one by: dask worker ADDRESS --nthreads 1")
    threads = max(worker["nthreads"] for worker in workers)
    if threads > 1:
        raise ValueError(
            "`scheduler` must have workers with one thread (--nthreads 1), since PyTorch has one seed per process, "
            f"got {threads} threads."
        )
    most = max(worker["resources"].get("GPU", 0) for worker in workers)
    if gpus > most:
        raise ValueError(
            f"`gpus` must be at most what one worker has, {most:g} (--resources GPU=1), got {gpus}; it would wait "
            "forever."
        )
    with _file_in(folder) as file:
        facts = client.run(_facts, str(Path.cwd()), file, on_error="return")
    _check_facts([*facts.values()])


@contextmanager
def _file_in(folder: Path) -> Iterator[str | None]:
    """Make a file by which workers see whether they have the same folder; an address is the same for all."""
    if is_remote(folder):
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, prefix=".shared-") as file:
        yield str(Path(file.name).absolute())


def _check_facts(facts: Sequence[Any]) -> None:
    """Compare versions and folders of workers with those of this process."""
    errors = [fact for fact in facts if isinstance(fact, Exception)]
    if errors:
        raise ValueError(
            f"`scheduler` must have workers with this package installed, got {type(errors[0]).__name__} from "
            f"{len(errors)} of {len(facts)}."
        ) from errors[0]
    own = _versions()
    others = [fact["versions"] for fact in facts if fact["versions"] != own]
    if others:
        raise ValueError(f"`scheduler` must have workers with the versions {own}, got {others[0]}.")
    without = sum(not fact["shared"] for fact in facts)
    if without:
        raise ValueError(
            "`scheduler` must have workers that see the folders of this process at the same path, got "
            f"{without} of {len(facts)} that don't."
        )


def _facts(folder: str, file: str | None) -> dict[str, Any]:
    """Return what must be the same for all workers; executed by each."""
    return {"versions": _versions(), "shared": Path(folder).is_dir() and (file is None or Path(file).is_file())}


def _versions() -> dict[str, str]:
    found = {}
    for name in SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found
