"""Rows of numbers a bag, gathered from all processes, every bag counted once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric, IterationMetric
from torch import Tensor

__all__ = ["BagIterationMetric", "is_share"]


class BagIterationMetric(CumulativeIterationMetric):
    """Base of metrics over bags, right in several processes too.

    A distributed sampler that gives every process as many bags as every other repeats some. Called with ``case_id``,
    one name a bag, such copies are left out when the processes are gathered, whichever process they are from; without
    it each bag is counted as it comes. :py:meth:`mean` does not depend on the order of bags either, so that the value
    of two processes is that of one to the last bit.

    A subclass writes MONAI's ``_compute_tensor`` with a row of numbers a bag, and ``aggregate``.

    Raises:
        ValueError: when a process is given one ``case_id`` twice, or not one a bag.
    """

    per_instance = (True, True)  # whether y_pred and y have an instance on their first axis, so that padding is cut off

    def reset(self) -> None:
        """Forget all bags."""
        super().reset()
        self._seen: set[str] = set()

    def __call__(self, y_pred: Any, y: Any = None, case_id: Sequence[Any] | None = None, **kwargs: Any) -> Tensor:
        """Add a batch: lists of tensors, one a bag, or a batch-first tensor of bags of one size."""
        rows = self._rows(y_pred, y, **kwargs)
        ids = [[0, -1]] * sum(map(len, rows)) if case_id is None else self._ids(rows, [str(case) for case in case_id])
        self.extend(torch.cat(rows), torch.tensor(ids))
        return torch.cat(rows)

    def get_buffer(self) -> Tensor | None:
        """Rows (R, K) of all bags since the last reset, those of the first process first; None before the first."""
        buffers = super().get_buffer()
        if buffers is None:
            return None
        rows, ids = buffers
        kept = ids[:, 1].cpu().numpy() < 0
        kept[np.unique(ids.cpu().numpy(), axis=0, return_index=True)[1]] = True
        return rows[torch.as_tensor(kept, device=rows.device)]

    def mean(self) -> Tensor:
        """Mean (K,) of each column over the rows that have a value in it, NaN where none has; of any order the same."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("`y_pred` must be given before the value is asked for, got none.")
        columns = [column[column.isfinite()].tolist() for column in rows.unbind(dim=1)]
        means = [math.fsum(values) / len(values) if values else math.nan for values in columns]
        return torch.tensor(means, dtype=torch.float64)

    def _rows(self, y_pred: Any, y: Any, **kwargs: Any) -> list[Tensor]:
        """Rows (R, K) of each bag; here one each."""
        return list(torch.as_tensor(IterationMetric.__call__(self, y_pred, y, **kwargs)).split(1))

    def _ids(self, rows: Sequence[Tensor], cases: Sequence[str]) -> list[list[int]]:
        if len(cases) != len(rows):
            raise ValueError(f"`case_id` must be one of each of the {len(rows)} bags, got {len(cases)}.")
        for case in cases:
            if case in self._seen:
                raise ValueError(f"`case_id` must be the name of one bag, got {case!r} twice.")
            self._seen.add(case)
        return [[_number(case), k] for case, own in zip(cases, rows, strict=True) for k in range(len(own))]


def _number(case: str) -> int:
    """What stands for a name where only tensors are gathered."""
    return int.from_bytes(hashlib.blake2b(case.encode(), digest_size=8).digest(), "little", signed=True)


def is_share(number: str) -> bool:
    """Whether a text is a number in (0, 1].

    Example:
        >>> [is_share(text) for text in ("0.1", "0", "1.5", "a")]
        [True, False, False, False]
    """
    try:
        return 0 < float(number) <= 1
    except ValueError:
        return False
