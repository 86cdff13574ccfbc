"""Dask clusters whose workers are threads of this process, so that they start in a moment."""

from contextlib import contextmanager

import dask
import distributed


@contextmanager
def cluster(*workers):
    """Start a scheduler, and a worker for each dictionary of options, and return the address of the scheduler."""
    spec = {i: {"cls": distributed.Worker, "options": {"nthreads": 1, **w}} for i, w in enumerate(workers)}
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": distributed.Scheduler, "options": options}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "5s"}),
        distributed.SpecCluster(workers=spec, scheduler=scheduler, silence_logs=50) as started,
    ):
        yield started.scheduler_address
