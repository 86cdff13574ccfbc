"""Tests of the end of training with several processes."""

from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from monai_mil_ext.apps.bundle import end_processes


def gloo_threads():
    """Threads of this process that run collectives of Gloo."""
    tasks = {path.name: (path / "comm").read_text() for path in Path("/proc/self/task").iterdir()}
    return {task for task, name in tasks.items() if "gloo" in name}


@pytest.mark.parametrize("wrap", [DistributedDataParallel, lambda net: net], ids=["ddp", "plain"])
def test_end_processes_leaves_no_thread_that_could_abort_the_exit(wrap, tmp_path):
    before = gloo_threads()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    net = torch.nn.Linear(2, 1)
    network = wrap(net)
    network(torch.ones(3, 2)).sum().backward()
    distributed.all_reduce(torch.ones(2))
    assert gloo_threads() - before
    end_processes(network)
    assert gloo_threads() - before == set()
    assert not distributed.is_initialized()
    assert net(torch.ones(3, 2)).isfinite().all()
    assert net.weight.grad.tolist() == [[3, 3]]
