"""Sums over all sets of runs of neighboring instances: a Markov chain of two states, in the log domain."""

from typing import Tuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["log_prefix_products", "sum_over_runs"]


def sum_over_runs(evidence: Tensor, enter: Tensor, stay: Tensor, valid: Tensor) -> Tuple[Tensor, Tensor]:
    r"""Sum the weights of all sets of runs that neither overlap nor touch, but for the set without a run.

    .. math::
        \log Z = \log \sum_{R \ne \emptyset} e^{\sum_{r \in R} (\text{enter} + (|r| - 1) \, \text{stay}
        + \sum_{n \in r} s_n)}, \quad
        \log p_n = \log \sum_{R \ni n} e^{\ldots} - \log Z

    The matrices of the chain are multiplied forward and backward; no small number is the difference of large ones.

    Args:
        evidence: evidence :math:`s_n` (B, N, C) of instances, in float32 or float64; the valid ones come first.
        enter: log-weight (C,) of the first instance of a run.
        stay: log-weight (C,) of each further instance.
        valid: Boolean (B, N, 1), False at padding, of which there must be one row at least.

    Returns:
        The logarithms of Z (B, C) and of p (B, N, C), which is meaningless at padding. For a bag without instances the
        first is a finite constant.

    Example:
        >>> s, zero = torch.zeros(1, 4, 1), torch.zeros(1)
        >>> total, inside = sum_over_runs(s, zero, zero, torch.tensor([[[True], [True], [True], [False]]]))
        >>> total.exp().item(), inside.exp()[0, :3, 0].tolist()  # 7 sets, 4 with each instance
        (7.0..., [0.571..., 0.571..., 0.571...])
    """
    forbidden = -1e30  # logarithm of zero, finite so that the gradient of a sum without any term is finite
    in_run, outside = evidence + stay, torch.zeros_like(evidence)
    first = evidence + enter
    rows = torch.stack([outside, first], 3), torch.stack([outside, in_run], 3)  # from outside, and from within a run
    same = forbidden * (1 - torch.eye(2, dtype=evidence.dtype, device=evidence.device))
    steps = torch.where(valid.unsqueeze(3).unsqueeze(4), torch.stack(rows, 3), same)
    products = log_prefix_products(torch.cat([steps, steps.transpose(3, 4).flip(1)], 2))
    forward, backward = products.split(evidence.shape[2], 2)
    before = forward[:, :, :, 0, 1]  # all ways from the start to instance n in a run
    after = torch.logsumexp(backward.flip(1)[:, 1:, :, :, 1], 3)  # all ways on from it to the end
    after = functional.pad(after, [0, 0, 0, 1])  # of which there is one behind the last instance
    total = torch.logsumexp(torch.where(valid, first + after, forbidden), 1)  # by the first instance in a run
    return total, before + after - total.unsqueeze(1)


def log_prefix_products(logs: Tensor) -> Tensor:
    r"""Compute the logarithms of the products :math:`M_0 M_1 \cdots M_n` of matrices (B, N, C, S, S), for all n.

    Products are doubled in length in :math:`\lceil \log_2 N \rceil` steps, each for all n at once. A traced or compiled
    program takes 20 steps, for up to 2^20 matrices.

    References:
        Hillis, Steele, "Data parallel algorithms", Communications of the ACM 29, 1986.

    Example:
        >>> log_prefix_products(torch.full((1, 4, 1, 1, 1), 0.5)).flatten().tolist()
        [0.5, 1.0, 1.5, 2.0]
    """
    index = torch.arange(logs.shape[1], device=logs.device)
    for step in range(_num_steps(logs.shape[1])):
        before = index - (1 << step)
        earlier = logs.index_select(1, before.clamp(min=0))
        both = torch.logsumexp(earlier.unsqueeze(5) + logs.unsqueeze(3), 4)
        logs = torch.where((before >= 0).view(-1, 1, 1, 1), both, logs)
    return logs


def _num_steps(num_matrices: int) -> int:
    """Return the number of doublings; a traced program cannot know it and gets that of a million matrices."""
    if torch.jit.is_scripting():  # TorchScript cannot compile is_compiling
        return _log2(num_matrices)
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return 20 if traced else _log2(num_matrices)


def _log2(number: int) -> int:
    """Return the logarithm to base 2, rounded up."""
    power = 0
    while (1 << power) < number:
        power += 1
    return power
