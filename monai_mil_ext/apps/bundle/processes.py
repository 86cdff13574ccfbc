"""The end of training with several processes."""

from __future__ import annotations

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["end_processes"]

HOLDS_GROUP = ("reducer", "logger", "process_group")  # attributes of DistributedDataParallel


def end_processes(network: nn.Module) -> None:
    """End the process group of training with several processes, and its threads.

    ``DistributedDataParallel`` keeps the group, and so the threads of Gloo, after ``destroy_process_group``. If one of
    them frees a tensor while Python exits, the process aborts with "terminate called without an active exception", and
    ``torchrun`` fails after a training that was complete (https://github.com/pytorch/pytorch/issues/190489).

    Args:
        network: Network of the training. Where it is a ``DistributedDataParallel``, it cannot be used afterwards; the
            network that it wraps can.

    Example:
        >>> finalize = "finalize: [$monai_mil_ext.apps.bundle.end_processes(@network)]"
    """
    distributed.destroy_process_group()
    if isinstance(network, DistributedDataParallel):
        for name in HOLDS_GROUP:
            vars(network).pop(name, None)
