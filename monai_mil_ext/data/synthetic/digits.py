"""Bags of scikit-learn's handwritten digits, for demonstrations and tests without a download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_positive, optional_dependency

__all__ = ["DIGITS_LICENSE", "DigitBag", "draw_digit_bags"]

load_digits = optional_dependency("", "sklearn.datasets", "load_digits")

DIGITS_LICENSE = "scikit-learn's copy of the UCI optical handwritten digits (CC BY 4.0)."


class DigitBag(NamedTuple):
    """Images of one bag, in order.

    Attributes:
        images: gray values (N, 8, 8) from 0 to 16, float64.
        instance_label: (N,) bool; whether an image is a nine.
    """

    images: NDArray[np.float64]
    instance_label: NDArray[np.bool_]

    @property
    def label(self) -> int:
        """Label of the bag: 1 if it has a nine, else 0."""
        return int(self.instance_label.any())


def draw_digit_bags(
    num_bags: int,
    size: int | tuple[int, int],
    num_nines: int = 1,
    run: bool = False,
    negatives: bool = True,
    from_front: bool = False,
    seed: int = 0,
) -> list[DigitBag]:
    """Draw bags of digits in which the nines are the positive instances; no image is used twice.

    Args:
        num_bags: number of bags.
        size: number of images of a bag, or the smallest and largest number.
        num_nines: number of nines of a positive bag.
        run: whether the nines are consecutive, at a random start, as a lesion in a scan is; otherwise the images of a
            bag are shuffled.
        negatives: whether the bags 0, 2, 4, ... have no nine; otherwise all bags are positive.
        from_front: whether the shuffled digits are taken from the first to the last instead of from the last to the
            first. Existing data sets use either order.
        seed: seed of the random generator.

    Raises:
        ValueError: if a number is not positive, a bag is too small for its nines, or there are too few digits.

    Example:
        >>> first, second = draw_digit_bags(num_bags=2, size=20, num_nines=5, run=True)
        >>> first.label, second.label, second.images.shape
        (0, 1, (20, 8, 8))
        >>> second.instance_label.nonzero()[0]
        array([4, 5, 6, 7, 8])
    """
    low, high = (size, size) if isinstance(size, int) else size
    check_positive(num_bags=num_bags, size=low, num_nines=num_nines)
    if not low <= high or low < num_nines + run:
        raise ValueError(f"`size` must be a range from at least {num_nines + run}, got {size!r}.")
    digits, rng = load_digits(), np.random.default_rng(seed)
    sizes = [low] * num_bags if low == high else rng.integers(low, high + 1, num_bags).tolist()
    nines, others = (rng.permutation(np.flatnonzero(keep)) for keep in (digits.target == 9, digits.target != 9))
    counts = [num_nines if i % 2 or not negatives else 0 for i in range(num_bags)]
    replaced = 0 if run else sum(counts)  # a run replaces digits that were taken, and a shuffled bag takes fewer
    if sum(counts) > len(nines) or sum(sizes) - replaced > len(others):
        raise ValueError(f"`num_bags` must be at most what {len(digits.target)} digits are enough for, got {num_bags}.")
    next_nine, next_other = (iter(pool if from_front else pool[::-1]) for pool in (nines, others))
    draw = _draw_run if run else _draw_shuffled
    bags = [
        draw(next_nine, next_other, length, count, num_nines, rng) for length, count in zip(sizes, counts, strict=True)
    ]
    return [DigitBag(digits.images[chosen], digits.target[chosen] == 9) for chosen in bags]


def _draw_run(
    nines: Iterator[Any], others: Iterator[Any], size: int, count: int, longest: int, rng: np.random.Generator
) -> list[Any]:
    chosen = _take(others, size)
    start = int(rng.integers(0, size - longest))  # drawn for negative bags, too
    chosen[start : start + count] = _take(nines, count)
    return chosen


def _draw_shuffled(
    nines: Iterator[Any], others: Iterator[Any], size: int, count: int, _longest: int, rng: np.random.Generator
) -> list[Any]:
    shuffled: list[Any] = rng.permutation([*_take(others, size - count), *_take(nines, count)]).tolist()
    return shuffled


def _take(pool: Iterator[Any], count: int) -> list[Any]:
    return [next(pool) for _ in range(count)]
