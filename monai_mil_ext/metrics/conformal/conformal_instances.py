"""Split conformal prediction of the instances that hold a positive one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_mil_ext.utils import check_choice, check_count, check_fraction, head_mean

__all__ = ["ConformalInstances", "InstanceSet", "bag_levels", "prefix_levels", "quantile_index"]

TARGETS, ORDERS = ("any", "all"), ("rank", "mass")


class InstanceSet(NamedTuple):
    """Set of instances of a bag.

    Attributes:
        indices: indices (K,) into the bag, highest score first, in the order of the bag if scores are equal; all
            instances of an abstention.
        num_needed: number of instances that the guarantee needs, which is more than may be shown if ``abstained``.
        num_instances: number N of instances of the bag.
        abstained: whether the set is all instances, because too many are needed, or calibration bags are too few.
    """

    indices: Tensor
    num_needed: int
    num_instances: int
    abstained: bool


class ConformalInstances:
    r"""Sets of instances that hold a positive one with probability 1 - alpha, by split conformal prediction.

    The sets of a bag are nested: they hold its instances of highest score, up to a level t. The level at which an
    instance joins is its rank with ``by="rank"``, and with ``by="mass"`` the part of the sum of scores that lies on the
    instances before it. The level of a calibration bag b is the first at which its set is right, for the worst order of
    instances of equal score:

    .. math:: r_b = \min_{j: y_{bj} = 1} \ell_{bj} \text{ (any)}, \qquad r_b = \max_{j: y_{bj} = 1} \ell_{bj}
        \text{ (all)}

    and t is the :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest of the n levels. If a new bag with a positive
    instance is exchangeable with those of the calibration, its set is right with probability at least
    :math:`1 - \alpha`, for any n and any scores, with ties. Nothing is said of bags without a positive instance.

    If :math:`n < 1/\alpha - 1`, no set but all instances has this guarantee. Then, and where a set is larger than
    ``max_share`` of the bag, it **abstains**: the set has all instances. So the probability that a set is shown and is
    wrong is at most alpha; among the bags that are answered, the share of wrong sets may be larger.

    Calibrate on bags that neither trained the network nor selected its epoch, one of each patient or with ``groups``.

    Args:
        alpha: largest probability of a wrong set, in (0, 1).
        target: ``"any"`` if a set is right with at least one positive instance, ``"all"`` if it needs all of them.
        by: ``"rank"`` for one number of instances in all bags, ``"mass"`` for fewer where scores are concentrated;
            choose before the calibration.
        max_share: largest share of a bag to show, in (0, 1].

    Raises:
        ValueError: when an option is not allowed.

    References:
        Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Angelopoulos and Bates, "A Gentle
        Introduction to Conformal Prediction", https://arxiv.org/abs/2107.07511

    Example:
        >>> scores = [torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])]
        >>> labels = [torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1])]
        >>> sets = ConformalInstances(alpha=0.25, max_share=0.8).fit(scores, labels)
        >>> sets.num_bags, sets.threshold
        (3, 2.0)
        >>> sets.select(torch.tensor([0.1, 0.2, 0.4, 0.3])).indices.tolist()
        [2, 3]
    """

    def __init__(self, alpha: float = 0.1, target: str = "any", by: str = "rank", max_share: float = 0.5) -> None:
        check_fraction(alpha=alpha, max_share=max_share)
        if not 0 < alpha < 1:
            raise ValueError(f"`alpha` must be in (0, 1), got {alpha}.")
        if max_share == 0:
            raise ValueError(f"`max_share` must be in (0, 1], got {max_share}.")
        check_choice("target", target, TARGETS)
        check_choice("by", by, ORDERS)
        self.alpha = float(alpha)
        self.target = target
        self.by = by
        self.max_share = float(max_share)
        self.num_bags = 0
        self.threshold: float | None = None

    @property
    def min_bags(self) -> int:
        """Fewest calibration bags for a guarantee: the smallest n >= 1 / alpha - 1."""
        return math.ceil(1 / exact(self.alpha) - 1)

    def fit(
        self, scores: Sequence[Tensor], labels: Sequence[Tensor], groups: Sequence[Hashable] | None = None
    ) -> ConformalInstances:
        """Find the threshold from calibration bags; those without a positive instance are left out.

        Args:
            scores: for each bag, scores (N,) of its instances without padding, or (N, A), whose mean over A is used.
            labels: for each bag, instance labels (N,), positive above 0.
            groups: for each bag, its patient; the bags of one count once, by the largest of their levels.

        Raises:
            ValueError: when the sequences differ in length, scores and labels of a bag differ in shape, scores are not
                finite, or are negative with ``by="mass"``.
        """
        levels = sorted(bag_levels(scores, labels, self.target, self.by, groups))
        index = quantile_index(len(levels), self.alpha)
        self.num_bags = len(levels)
        self.threshold = levels[index - 1] if index <= len(levels) else None
        return self

    def select(self, scores: Tensor) -> InstanceSet:
        """Return the set of a bag with the scores (N,) of its instances, or (N, A), whose mean over A is used.

        Raises:
            ValueError: as :py:meth:`fit`.
        """
        values, order = _finite(scores).sort(descending=True, stable=True)
        levels, needed = prefix_levels(values, self.by), len(values)
        if self.threshold is not None:
            needed = int((levels <= self.threshold).sum())
        abstained = self.threshold is None or needed > exact(self.max_share) * len(values)
        return InstanceSet(order if abstained else order[:needed], needed, len(values), abstained)

    def describe(self, chosen: InstanceSet, instance: str = "slice", bag: str = "scan") -> str:
        """Say in a sentence what the set of a bag guarantees, or why there is none.

        Args:
            chosen: set of the bag.
            instance: name of an instance.
            bag: name of a bag.

        Example:
            >>> sets = ConformalInstances()
            >>> sets.describe(sets.select(torch.ones(36)))
            'No set of slices: a guarantee of 90 % needs 9 calibration scans with a lesion, got 0.'
        """
        level, of = percent(1 - exact(self.alpha)), f"{chosen.num_needed:,} of {chosen.num_instances:,} {instance}s"
        if self.threshold is None:
            needs = f"a guarantee of {level} needs {self.min_bags} calibration {bag}s with a lesion"
            return f"No set of {instance}s: {needs}, got {self.num_bags}."
        what = f"{'one' if self.target == 'any' else 'every'} {instance} with a lesion"
        if chosen.abstained:
            limit = f"more than {percent(exact(self.max_share))} of the {bag}"
            return f"No set of {instance}s: to include {what} with a probability of {level}, {of} are needed, {limit}."
        verb = "includes" if chosen.num_needed == 1 else "include"
        these = "this" if chosen.num_needed == 1 else "these"
        least = "at least " if self.target == "any" else ""
        return f"If the {bag} has a lesion, {these} {of} {verb} {least}{what} with a probability of at least {level}."

    def to_dict(self) -> dict[str, Any]:
        """Return options and calibration as plain types for JSON."""
        names = ("alpha", "target", "by", "max_share", "num_bags", "threshold")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConformalInstances:
        """Make an instance from the values of :py:meth:`to_dict`; other keys are ignored.

        Raises:
            ValueError: when a value is missing or not allowed.

        Example:
            >>> sets = ConformalInstances(alpha=0.05)
            >>> ConformalInstances.from_dict(sets.to_dict()).to_dict() == sets.to_dict()
            True
        """
        missing = [name for name in cls().to_dict() if name not in values]
        if missing:
            raise ValueError(f"`values` must have the calibration of instance sets, got none of {missing}.")
        made = cls(*(values[name] for name in ("alpha", "target", "by", "max_share")))
        number, threshold = values["num_bags"], values["threshold"]
        check_count(num_bags=number)
        is_known = isinstance(threshold, (int, float)) and math.isfinite(threshold)
        if is_known != (quantile_index(number, made.alpha) <= number) or not (is_known or threshold is None):
            raise ValueError(f"`threshold` must be that of {number} bags, got {threshold!r}.")
        made.num_bags, made.threshold = number, threshold
        return made


def quantile_index(num_bags: int, alpha: float) -> int:
    r"""Return :math:`\lceil (n + 1)(1 - \alpha) \rceil`, without rounding errors; above n there is no threshold.

    Example:
        >>> quantile_index(9, 0.1), quantile_index(8, 0.1), quantile_index(29, 0.1)
        (9, 9, 27)
    """
    return math.ceil((num_bags + 1) * (1 - exact(alpha)))


def exact(value: float) -> Fraction:
    """Return the fraction that a decimal number stands for, such as 1/10 for 0.1."""
    return Fraction(repr(float(value)))


def percent(share: Fraction) -> str:
    """Return a share in percent.

    Example:
        >>> percent(Fraction(975, 1000))
        '97.5 %'
    """
    return f"{float(100 * share):g} %"


def bag_levels(
    scores: Sequence[Tensor],
    labels: Sequence[Tensor],
    target: str,
    by: str,
    groups: Sequence[Hashable] | None = None,
) -> list[float]:
    """Return the level at which the set of each bag with a positive instance is right, the largest of each group."""
    names = range(len(scores)) if groups is None else groups
    if not len(scores) == len(labels) == len(names):
        raise ValueError(f"`labels` and `groups` must be as many as `scores`, got {len(labels)} and {len(names)}.")
    found: dict[Hashable, float] = {}
    for s, y, name in zip(scores, labels, names, strict=True):
        values, positive = _finite(s), torch.as_tensor(y).as_subclass(Tensor).cpu() > 0
        if positive.shape != values.shape:
            raise ValueError(f"`labels` must have the shape {tuple(values.shape)}, got {tuple(positive.shape)}.")
        if positive.any():
            found[name] = max(_bag_level(values, positive, target, by), found.get(name, 0.0))
    return list(found.values())


def prefix_levels(ordered: Tensor, by: str = "rank") -> Tensor:
    """Return the level (N,) at which each instance joins the set of a bag: its rank, or the mass before it.

    Args:
        ordered: scores (N,), highest first.
        by: ``"rank"`` or ``"mass"``.

    Example:
        >>> prefix_levels(torch.tensor([0.5, 0.25, 0.25])).tolist()
        [1.0, 2.0, 3.0]
        >>> prefix_levels(torch.tensor([0.5, 0.25, 0.25]), "mass").tolist()
        [0.0, 0.5, 0.75]
    """
    values = ordered.double()
    if by == "rank":
        return torch.arange(1, len(values) + 1, dtype=torch.float64)
    if values[-1] < 0 or values[0] <= 0:
        raise ValueError(f"`scores` must be >= 0 and not all 0 for sets by mass, got {values[-1]:g} to {values[0]:g}.")
    mass = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return mass[:-1] / mass[-1]


def _bag_level(scores: Tensor, positive: Tensor, target: str, by: str) -> float:
    """Return the level at which the set of a bag is right for any order of equal scores."""
    if target == "any":
        first = scores[positive].max()
        place = (scores > first).sum() + ((scores == first) & ~positive).sum()
    else:
        place = (scores >= scores[positive].min()).sum() - 1
    return float(prefix_levels(scores.sort(descending=True).values, by)[place])


def _finite(scores: Tensor) -> Tensor:
    values = head_mean(torch.as_tensor(scores).as_subclass(Tensor).detach().cpu())
    if values.ndim != 1 or not len(values) or not values.isfinite().all():
        raise ValueError(f"`scores` must be finite and (N,) or (N, A), got shape {tuple(scores.shape)}.")
    return values
