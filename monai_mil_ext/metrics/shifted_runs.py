"""Bayes-optimal detection of a run of instances with a shifted mean."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive

__all__ = ["RunPosterior", "run_posterior", "shift_evidence"]


class RunPosterior(NamedTuple):
    """Posterior of a run of shifted instances in a bag.

    Attributes:
        log_odds: log-odds () that the bag contains a run.
        instances: probability (N,) of each instance to belong to the run, given that there is one.
    """

    log_odds: Tensor
    instances: Tensor


def shift_evidence(x: Tensor, shift: float, mean: float = 0.0, sd: float = 1.0) -> Tensor:
    r"""Compute the log-likelihood ratio of a shifted mean for each instance in float64.

    .. math:: l_j = \sum_d \frac{\delta (x_{jd} - \mu)}{\sigma^2} - \frac{\delta^2}{2 \sigma^2}

    Args:
        x: shifted features (N, k) of the instances.
        shift: shift :math:`\delta` of the mean.
        mean: mean :math:`\mu` without shift.
        sd: standard deviation :math:`\sigma`.

    Returns:
        Log-likelihood ratios (N,).

    Example:
        >>> shift_evidence(torch.tensor([[0.25], [1.0]]), shift=0.5).tolist()
        [0.0, 0.375]
    """
    return ((x.double() - mean) * shift - shift**2 / 2).sum(1) / sd**2


def run_posterior(evidence: Tensor, run_length: int, prob: float = 0.5) -> RunPosterior:
    r"""Compute the posterior of a run in a bag, with a uniform prior over its positions.

    .. math::
        W_u = \sum_{j=u}^{u+r-1} l_j, \quad
        \text{log-odds} = \log \sum_u \exp W_u - \log(N - r + 1) + \log \frac{p}{1 - p}, \quad
        P(y_j = 1 \mid y = 1) = \sum_{u \le j < u+r} \operatorname{softmax}(W)_u

    where l is the evidence. The computation is in log space, since a product of densities underflows on long bags.

    Args:
        evidence: log-likelihood ratios (N,) of the instances, see :py:func:`shift_evidence`.
        run_length: number r of instances of the run.
        prob: prior probability p that a bag contains a run.

    Returns:
        The posterior.

    Raises:
        ValueError: if the run is longer than the bag, or p is not in (0, 1).

    Example:
        >>> posterior = run_posterior(torch.tensor([0.0, 0.0, 0.0]), run_length=2)
        >>> posterior.log_odds.item(), posterior.instances.tolist()
        (0.0, [0.5, 1.0, 0.5])
    """
    check_positive(run_length=run_length)
    if evidence.ndim != 1 or len(evidence) < run_length:
        raise ValueError(f"`evidence` must be (N,) with at least {run_length} values, got {tuple(evidence.shape)}.")
    if not 0 < prob < 1:
        raise ValueError(f"`prob` must be in (0, 1), got {prob!r}.")
    windows = evidence.unfold(0, run_length, 1).sum(1)
    log_odds = windows.logsumexp(0) - math.log(len(windows)) + math.log(prob / (1 - prob))
    position = windows.softmax(0)
    padded = torch.nn.functional.pad(position, [run_length - 1, run_length - 1])
    return RunPosterior(log_odds, padded.unfold(0, run_length, 1).sum(1))
