"""Gathering of rows from all processes of a distributed run, each bag once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TypeVar

import ignite.distributed as idist

__all__ = ["gather_rows", "merge_rows"]

Row = TypeVar("Row")


def gather_rows(rows: Sequence[Row], case_id: Callable[[Row], str]) -> list[Row]:
    """Return the rows of all ranks in the order of the dataset, without bags that a sampler repeated.

    Args:
        rows: rows of this rank, one per bag.
        case_id: function that returns the case id of a row; rows with an empty case id are always kept.
    """
    return merge_rows(idist.all_gather(rows), case_id) if idist.get_world_size() > 1 else list(rows)


def merge_rows(parts: Sequence[Sequence[Row]], case_id: Callable[[Row], str]) -> list[Row]:
    """Merge the rows of several ranks, which a sampler distributed one by one.

    A sampler repeats bags on other ranks if the number of bags is not a multiple of the number of ranks; the first row
    of a bag is kept.

    Example:
        >>> merge_rows([["a", "c"], ["b", "a"]], str)
        ['a', 'b', 'c']
    """
    owners: dict[str, int] = {}
    merged = []
    for rows in zip_longest(*parts):
        for rank, row in enumerate(rows):
            if row is not None and (not case_id(row) or owners.setdefault(case_id(row), rank) == rank):
                merged.append(row)
    return merged
