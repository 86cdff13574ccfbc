"""Cost of the trainings of an experiment: of those that are finished, and of the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Cost"]


class Cost(NamedTuple):
    """Cost of an experiment.

    Attributes:
        finished: number of finished trainings.
        total: number of all trainings.
        seconds: seconds of a core that the finished took.
        remaining: seconds of a core that the rest takes, NaN if nothing is finished.

    Example:
        >>> cost = Cost.of([("small", {"cpu_seconds": 1.0}), ("small", None), ("large", None)])
        >>> cost.remaining, cost.told
        (2.0, '1 of 3 trainings are finished, the rest takes about 0.1 core-hours')
    """

    finished: int
    total: int
    seconds: float
    remaining: float

    @classmethod
    def of(cls, records: Sequence[tuple[str, Mapping[str, Any] | None]]) -> Cost:
        """Sum up records, each with its group; an unfinished training, None, takes the mean of its group, or of all."""
        known = defaultdict(list)
        for group, record in records:
            if record is not None:
                known[group].append(record["cpu_seconds"])
        done = [seconds for of_group in known.values() for seconds in of_group]
        mean = float(np.mean(done)) if done else float("nan")
        rest = [float(np.mean(known[group])) if known[group] else mean for group, record in records if record is None]
        return cls(len(done), len(records), float(sum(done)), float(sum(rest)))

    @property
    def told(self) -> str:
        """Sentence on what is left."""
        hours = max(0.1, round(self.remaining / 3600, 1))
        return f"{self.finished} of {self.total} trainings are finished, the rest takes about {hours} core-hours"
