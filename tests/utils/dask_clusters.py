"""Dask clusters that start in a moment: of threads of this process, or of processes that one server has forked."""

from contextlib import contextmanager

import dask
import distributed
from distributed.utils import get_mp_context


@contextmanager
def cluster(*workers):
    """Start a scheduler, and a thread for each dictionary of options, and return the address of the scheduler."""
    spec = {i: {"cls": distributed.Worker, "options": {"nthreads": 1, **w}} for i, w in enumerate(workers)}
    with _start(spec) as address:
        yield address


@contextmanager
def processes(number):
    """Start a scheduler and processes that may be killed, and are then started again; return the address."""
    worker = {"cls": distributed.Nanny, "options": {"nthreads": 1, "memory_limit": 0, "dashboard": False}}
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "tests.handlers.resumable_run"])
        with _start(dict.fromkeys(range(number), worker), connect="60s") as address:
            yield address


@contextmanager
def _start(spec, connect="5s"):
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": distributed.Scheduler, "options": options}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": connect}),
        distributed.SpecCluster(workers=spec, scheduler=scheduler, silence_logs=50) as started,
    ):
        yield started.scheduler_address
