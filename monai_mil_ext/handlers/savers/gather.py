"""Gathering of rows from all processes of a distributed run, each bag once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TypeVar

import ignite.distributed as idist

__all__ = ["gather_rows", "merge_rows"]

Row = TypeVar("Row")
TOLERANCE = 1e-3


def gather_rows(
    rows: Sequence[Row], case_id: Callable[[Row], str], content: Callable[[Row], Sequence[float]]
) -> list[Row]:
    """Return the rows of all ranks in the order of the dataset, without bags that a sampler repeated.

    Args:
        rows: rows of this rank, one per bag.
        case_id: function that returns the case id of a row; rows with an empty case id are always kept.
        content: function that returns the numbers of a row by which two bags differ, such as label and probabilities.

    Raises:
        ValueError: if two ranks have different bags of the same case id.
    """
    return merge_rows(idist.all_gather(rows), case_id, content) if idist.get_world_size() > 1 else list(rows)


def merge_rows(
    parts: Sequence[Sequence[Row]], case_id: Callable[[Row], str], content: Callable[[Row], Sequence[float]]
) -> list[Row]:
    """Merge the rows of several ranks, which a sampler distributed one by one.

    A sampler repeats bags on other ranks if the number of bags is not a multiple of the number of ranks; the first row
    of a bag is kept. Rows of one rank are all kept, since a sampler does not repeat a bag there.

    Raises:
        ValueError: if two ranks have rows of the same case id and different content, so that one of two bags would be
            lost.

    Example:
        >>> merge_rows([["a", "c"], ["b", "a"]], str, lambda row: [])
        ['a', 'b', 'c']
    """
    owners: dict[str, int] = {}
    merged = []
    for rows in zip_longest(*parts):
        for rank, row in enumerate(rows):
            if row is None:
                continue
            case = case_id(row)
            owner = owners.setdefault(case, rank) if case else rank
            if owner == rank:
                merged.append(row)
            elif not any(case_id(other) == case and _agree(content(row), content(other)) for other in parts[owner]):
                raise ValueError(f"`case_id` must be the name of one bag, got {case!r} for different bags.")
    return merged


def _agree(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether numbers are equal up to the rounding of a network on another rank."""
    return len(a) == len(b) and all(abs(x - y) <= TOLERANCE for x, y in zip(a, b, strict=True))
