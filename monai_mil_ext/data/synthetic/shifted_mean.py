"""Bags with a run of shifted instances, and the exact posterior of that run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from monai.utils import CommonKeys
from torch import Tensor
from torch.utils.data import Dataset

from monai_mil_ext.utils import BagKeys, check_positive

__all__ = [
    "RunPosterior",
    "ShiftedMeanDataset",
    "run_posterior",
    "shift_evidence",
]


class ShiftedMeanDataset(Dataset[dict[str, Any]]):
    r"""Semi-synthetic dataset of the papers on slice localization, bit for bit the published one.

    .. math::
        S \sim U\{s_\text{low}, \dots, s_\text{high}\}, \quad h_{jd} \sim N(\mu, \sigma^2), \quad
        y \sim \operatorname{Bernoulli}(p), \quad u \sim U\{0, \dots, S - r\}

        y = 1: \quad h_{jd} \leftarrow h_{jd} + \delta \quad \text{for } u \le j < u + r, \; d < k

    One PyTorch generator on the CPU draws all lengths, all instances, u of each bag and all y, in this order, in
    float32. An item has ``image`` (S, F), ``label``, ``instance_label`` (S,) int64, ``case_id`` and ``patient``
    (another one for each bag). The whole dataset is in memory, and ``image`` is a view of it. ``feature_seed`` permutes
    the features, in the same way for every dataset with that seed, so that the shifted ones can be anywhere.

    Args:
        num_bags: number of bags.
        seed: seed of the generator.
        run_length: number r of consecutive instances that are shifted.
        shift: :math:`\delta`.
        num_shifted: number k of features that are shifted.
        in_features: size F of an instance.
        lengths: smallest and largest number of instances; the smallest is at least ``run_length``.
        noise: :math:`\mu` and :math:`\sigma`.
        prob: p.
        feature_seed: seed of the permutation of the features; ``None`` keeps the shifted ones first.

    Raises:
        ValueError: when a size is not positive, the lengths are not a range or too short for the run, more features are
            shifted than exist, :math:`\sigma` is not positive, or p is not in [0, 1].

    References:
        Harvey, Loevlie, Hughes, "Normal Guidance is what Attention Needs", arXiv:2605.27306; Castro-Macias et al.,
        arXiv:2510.25759.

    Example:
        >>> bags = ShiftedMeanDataset(num_bags=3, seed=0, in_features=4)
        >>> bags[0]["image"].shape, [int(bag["label"]) for bag in bags], int(bags[0]["instance_label"].sum())
        (torch.Size([21, 4]), [1, 0, 0], 12)
    """

    def __init__(
        self,
        num_bags: int,
        seed: int,
        run_length: int = 12,
        shift: float = 0.5,
        num_shifted: int = 1,
        in_features: int = 768,
        lengths: tuple[int, int] = (20, 60),
        noise: tuple[float, float] = (0.0, 1.0),
        prob: float = 0.5,
        feature_seed: int | None = None,
    ) -> None:
        check_positive(num_bags=num_bags, run_length=run_length, num_shifted=num_shifted, in_features=in_features)
        (low, high), (mean, sd) = lengths, noise
        if not run_length <= low <= high:
            raise ValueError(f"`lengths` must be a range from at least {run_length}, got {tuple(lengths)}.")
        if num_shifted > in_features:
            raise ValueError(f"`num_shifted` must be at most {in_features}, got {num_shifted}.")
        if not (math.isfinite(sd) and sd > 0):
            raise ValueError(f"`noise` must have a positive standard deviation, got {sd!r}.")
        if not 0 <= prob <= 1:
            raise ValueError(f"`prob` must be in [0, 1], got {prob!r}.")
        self.seed = seed
        self.run_length = run_length
        generator = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(low, high + 1, (num_bags,), generator=generator)
        self.instances = torch.randn(int(self.lengths.sum()), in_features, generator=generator)
        if (mean, sd) != (0.0, 1.0):
            self.instances.mul_(sd).add_(mean)
        ends = (self.lengths - run_length + 1).tolist()
        self.starts = torch.cat([torch.randint(0, end, (1,), generator=generator) for end in ends])
        self.labels = torch.bernoulli(prob * torch.ones(num_bags), generator=generator).long()
        self.offsets = self.lengths.cumsum(0) - self.lengths
        self._shift(shift, num_shifted)
        if feature_seed is not None:
            order = torch.randperm(in_features, generator=torch.Generator().manual_seed(feature_seed))
            self.instances = self.instances[:, order]

    def _shift(self, shift: float, num_shifted: int) -> None:
        """Shift the runs of the positive bags and label their instances."""
        first = (self.offsets + self.starts)[self.labels > 0]
        rows = (first.unsqueeze(1) + torch.arange(self.run_length)).flatten()
        self.instances[rows, :num_shifted] += shift
        self.instance_labels = torch.zeros(len(self.instances), dtype=torch.int64)
        self.instance_labels[rows] = 1

    def __len__(self) -> int:
        """Return the number of bags."""
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one bag; a negative ``index`` counts from the end."""
        number = range(len(self))[index]
        name = f"{self.seed}-{number}"
        return {
            str(CommonKeys.IMAGE): self._rows_of(self.instances, number),
            str(CommonKeys.LABEL): self.labels[number],
            str(BagKeys.INSTANCE_LABEL): self._rows_of(self.instance_labels, number),
            str(BagKeys.CASE_ID): name,
            str(BagKeys.PATIENT): name,
        }

    def _rows_of(self, values: Tensor, number: int) -> Tensor:
        return values[int(self.offsets[number]) :][: int(self.lengths[number])]


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
