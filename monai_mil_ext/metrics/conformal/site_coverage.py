"""Coverage of instance sets in bags with labels, and whether the guarantee still holds there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.utils import optional_dependency

from .conformal_instances import ConformalInstances, bag_levels, quantile_index

__all__ = ["set_coverage"]

stats = optional_dependency("", "scipy.stats")
LEVEL = 0.05  # of both tests


def set_coverage(
    sets: ConformalInstances,
    scores: Sequence[Tensor],
    labels: Sequence[Tensor],
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    r"""Compute how often the sets of a calibration are right in other bags, such as labeled scans of a new site.

    A set counts before it abstains, since a set of all instances is always right. Of m bags with a positive instance,
    c have a right set. Two tests of level 0.05 ask whether that is too few:

    - ``holds`` is false if c is improbable for a coverage of :math:`1 - \alpha` (one-sided binomial test). So the
      guarantee can't be relied on in such bags.
    - ``shifted`` is true if c is improbable for bags that are exchangeable with the n of the calibration, for which c
      has a beta-binomial distribution (or is larger, with ties):
      :math:`c \sim \mathrm{BetaBin}(m, k, n + 1 - k)` with :math:`k = \lceil (n + 1)(1 - \alpha) \rceil`. So bags
      differ from those of the calibration, which is more than an unlucky calibration.

    Args:
        sets: fitted sets.
        scores: for each bag, as in :py:meth:`ConformalInstances.fit`.
        labels: for each bag, instance labels (N,).
        groups: for each bag, its patient, which counts once; it is right if the sets of all its bags are.

    Returns:
        ``num_bags`` m, ``covered`` c, ``coverage`` and its ``interval_95`` (Clopper and Pearson), ``nominal``
        :math:`1 - \alpha`, ``p_value`` and ``holds``, ``shift_p_value`` and ``shifted``, ``mean_size`` and
        ``mean_share`` of the needed sets, ``abstained`` (share of bags) and ``coverage_answered``, that of the other
        bags, which has no guarantee. Without a bag with a positive instance, only the number of bags.

    Raises:
        ValueError: as :py:meth:`ConformalInstances.fit`.

    Example:
        >>> bags = [torch.tensor([0.6, 0.3, 0.1])] * 9
        >>> sets = ConformalInstances(max_share=1).fit(bags, [torch.tensor([1, 0, 0])] * 9)
        >>> found = set_coverage(sets, bags, [torch.tensor([0, 0, 1])] * 9)
        >>> found["coverage"], found["holds"], found["shifted"]
        (0.0, False, True)
    """
    levels = np.array(bag_levels(scores, labels, sets.target, sets.by, groups))
    if not len(levels):
        return {"num_bags": 0}
    limit = np.inf if sets.threshold is None else sets.threshold
    covered, count = int((levels <= limit).sum()), len(levels)
    test = stats.binomtest(covered, count, 1 - sets.alpha, alternative="less")
    interval = stats.binomtest(covered, count).proportion_ci(0.95)
    shift = _shift_p_value(sets, covered, count)
    return {
        "num_bags": count,
        "covered": covered,
        "coverage": covered / count,
        "interval_95": [float(interval.low), float(interval.high)],
        "nominal": 1 - sets.alpha,
        "p_value": float(test.pvalue),
        "holds": bool(test.pvalue >= LEVEL),
        "shift_p_value": shift,
        "shifted": shift < LEVEL,
        **_sizes(sets, scores, labels),
    }


def _shift_p_value(sets: ConformalInstances, covered: int, count: int) -> float:
    """Return the probability of at most so many right sets in bags that are exchangeable with the calibration."""
    index = quantile_index(sets.num_bags, sets.alpha)
    if sets.threshold is None:
        return 1.0
    return float(stats.betabinom.cdf(covered, count, index, sets.num_bags + 1 - index))


def _sizes(sets: ConformalInstances, scores: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Any]:
    """Return the size of the sets of positive bags, and how often those are right that are shown."""
    positive = [(s, torch.as_tensor(y)) for s, y in zip(scores, labels, strict=True) if (torch.as_tensor(y) > 0).any()]
    chosen = [sets.select(s) for s, _ in positive]
    right = [
        bool((y[c.indices] > 0).any() if sets.target == "any" else (y[c.indices] > 0).sum() == (y > 0).sum())
        for c, (_, y) in zip(chosen, positive, strict=True)
        if not c.abstained
    ]
    return {
        "mean_size": float(np.mean([c.num_needed for c in chosen])),
        "mean_share": float(np.mean([c.num_needed / c.num_instances for c in chosen])),
        "abstained": float(np.mean([c.abstained for c in chosen])),
        "coverage_answered": float(np.mean(right)) if right else None,
    }
