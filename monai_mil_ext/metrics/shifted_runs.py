"""What can be known at best of a run of shifted instances: Bayes' rule over all places where it may lie."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive

__all__ = ["RunPosterior", "run_posterior", "shift_evidence"]


class RunPosterior(NamedTuple):
    """What the instances of a bag say of a run.

    Attributes:
        log_odds: (), that the bag has one.
        instances: (N,), probability of each instance to lie in it, given that there is one.
    """

    log_odds: Tensor
    instances: Tensor


def shift_evidence(x: Tensor, shift: float, mean: float = 0.0, sd: float = 1.0) -> Tensor:
    r"""Log-likelihood ratio (N,) of shifted against not, of instances (N, k) that are all the shifted features.

    .. math:: l_j = \sum_d \frac{\delta (x_{jd} - \mu)}{\sigma^2} - \frac{\delta^2}{2 \sigma^2}

    It is computed in float64.

    Example:
        >>> shift_evidence(torch.tensor([[0.25], [1.0]]), shift=0.5).tolist()
        [0.0, 0.375]
    """
    return ((x.double() - mean) * shift - shift**2 / 2).sum(1) / sd**2


def run_posterior(evidence: Tensor, run_length: int, prob: float = 0.5) -> RunPosterior:
    r"""Bayes estimators of a bag with log-likelihood ratios ``evidence`` (N,), all places of the run equally likely.

    .. math::
        W_u = \sum_{j=u}^{u+r-1} l_j, \quad
        \text{log-odds} = \log \sum_u \exp W_u - \log(N - r + 1) + \log \frac{p}{1 - p}, \quad
        P(y_j = 1 \mid y = 1) = \sum_{u \le j < u+r} \operatorname{softmax}(W)_u

    All in log space: a product of densities underflows on long bags.

    Args:
        evidence: one number an instance, :py:func:`shift_evidence`.
        run_length: number r of instances of the run.
        prob: p, that a bag has one.

    Raises:
        ValueError: when the run is longer than the bag or p is not in (0, 1).

    Example:
        >>> found = run_posterior(torch.tensor([0.0, 0.0, 0.0]), run_length=2)
        >>> found.log_odds.item(), found.instances.tolist()
        (0.0, [0.5, 1.0, 0.5])
    """
    check_positive(run_length=run_length)
    if evidence.ndim != 1 or len(evidence) < run_length:
        raise ValueError(f"`evidence` must be (N,) with at least {run_length} values, got {tuple(evidence.shape)}.")
    if not 0 < prob < 1:
        raise ValueError(f"`prob` must be in (0, 1), got {prob!r}.")
    windows = evidence.unfold(0, run_length, 1).sum(1)
    log_odds = windows.logsumexp(0) - math.log(len(windows)) + math.log(prob / (1 - prob))
    place = windows.softmax(0)
    reach = torch.nn.functional.pad(place, [run_length - 1, run_length - 1])
    return RunPosterior(log_odds, reach.unfold(0, run_length, 1).sum(1))
