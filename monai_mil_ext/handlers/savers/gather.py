"""Rows of the bags of a run, gathered from all processes of a distributed run, each bag once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import ignite.distributed as idist
from ignite.engine import Engine, Events

__all__ = ["RowHandler", "gather_rows", "merge_rows"]

Row = TypeVar("Row")
TOLERANCE = 1e-3


class RowHandler(ABC):
    """Base of handlers that note a row of each bag of a run, and use the rows of all processes at its end."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Note rows after every iteration of ``engine``, and use them when it has finished."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    @abstractmethod
    def _row(self, item: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row of a decollated item, with its ``case_id``; None for a bag that has none."""

    @abstractmethod
    def _content(self, row: Mapping[str, Any]) -> list[float]:
        """Return the numbers by which two bags differ."""

    @abstractmethod
    def _finish(self, engine: Engine, rows: list[dict[str, Any]]) -> None:
        """Use the rows of all processes."""

    def _start(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        items = zip(engine.state.batch, engine.state.output, strict=True)
        rows = [self._row({**batch, **output}) for batch, output in items]
        self._rows += [row for row in rows if row is not None]

    def _complete(self, engine: Engine) -> None:
        self._finish(engine, gather_rows(self._rows, lambda row: str(row["case_id"]), self._content))


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
