"""Base class of metrics over bags, which are gathered from all processes and counted once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric, IterationMetric
from torch import Tensor

__all__ = ["BagIterationMetric", "is_fraction"]


class BagIterationMetric(CumulativeIterationMetric):
    """Base class of metrics over bags that are exact in distributed runs.

    A distributed sampler repeats some bags so that every process gets the same number. If the metric is called with
    ``case_id``, one name per bag, such duplicates are removed when the processes are gathered; without it, every bag
    counts. :py:meth:`mean` does not depend on the order of bags, so the result of two processes equals that of one
    exactly.

    A subclass implements MONAI's ``_compute_tensor``, which returns a row of numbers per bag, and ``aggregate``.

    Raises:
        ValueError: if a process receives a ``case_id`` twice, or not exactly one per bag, or two processes receive
            different bags of one ``case_id`` (if its rows are the outputs of a network).
    """

    rows_are_outputs = False  # whether a row is the output of a network, which hardly differs between processes
    per_instance = (True, True)  # whether y_pred and y have an instance axis, from which padding is removed

    def reset(self) -> None:
        """Remove all bags."""
        super().reset()
        self._seen: set[str] = set()

    def __call__(self, y_pred: Any, y: Any = None, case_id: Sequence[Any] | None = None, **kwargs: Any) -> Tensor:
        """Add a batch: lists with a tensor per bag, or batch-first tensors of bags of one size."""
        rows = self._rows(y_pred, y, **kwargs)
        ids = [[0, -1]] * sum(map(len, rows)) if case_id is None else self._ids(rows, [str(case) for case in case_id])
        self.extend(torch.cat(rows), torch.tensor(ids))
        return torch.cat(rows)

    def get_buffer(self) -> Tensor | None:
        """Return the rows (R, K) of all bags since the last reset, in the order of processes; None without bags."""
        buffers = super().get_buffer()
        if buffers is None:
            return None
        rows, ids = buffers
        kept = ids[:, 1].cpu().numpy() < 0
        _, first, inverse = np.unique(ids.cpu().numpy(), axis=0, return_index=True, return_inverse=True)
        owners = first[inverse.reshape(-1)]
        if self.rows_are_outputs:
            _check_repeats(rows.cpu().numpy()[~kept], rows.cpu().numpy()[owners][~kept])
        kept[first] = True
        return rows[torch.as_tensor(kept, device=rows.device)]

    def mean(self) -> Tensor:
        """Compute the mean (K,) of each column over its finite values, independent of their order; NaN without any."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("`y_pred` must be given before the value is computed, got none.")
        columns = [column[column.isfinite()].tolist() for column in rows.unbind(dim=1)]
        means = [math.fsum(values) / len(values) if values else math.nan for values in columns]
        return torch.tensor(means, dtype=torch.float64)

    def _rows(self, y_pred: Any, y: Any, **kwargs: Any) -> list[Tensor]:
        """Return the rows (R, K) of each bag; one row per bag by default."""
        return list(torch.as_tensor(IterationMetric.__call__(self, y_pred, y, **kwargs)).split(1))

    def _ids(self, rows: Sequence[Tensor], cases: Sequence[str]) -> list[list[int]]:
        if len(cases) != len(rows):
            raise ValueError(f"`case_id` must be one name for each of {len(rows)} bags, got {len(cases)}.")
        for case in cases:
            if case in self._seen:
                raise ValueError(f"`case_id` must be the name of one bag, got {case!r} twice.")
            self._seen.add(case)
        return [[_number(case), k] for case, part in zip(cases, rows, strict=True) for k in range(len(part))]


def _check_repeats(rows: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]) -> None:
    """Raise ``ValueError`` if a row differs by more than rounding from the row of its case that is kept."""
    if not np.allclose(rows, kept, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError("`case_id` must be the name of one bag, got one for different bags of two processes.")


def _number(case: str) -> int:
    """Hash a name to an integer, since only tensors are gathered."""
    return int.from_bytes(hashlib.blake2b(case.encode(), digest_size=8).digest(), "little", signed=True)


def is_fraction(number: str) -> bool:
    """Return whether a text is a number in (0, 1].

    Example:
        >>> [is_fraction(text) for text in ("0.1", "0", "1.5", "a")]
        [True, False, False, False]
    """
    try:
        return 0 < float(number) <= 1
    except ValueError:
        return False
