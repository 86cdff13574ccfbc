"""Predictions of one method of a study, in memory and as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import atomic_path, optional_dependency

__all__ = ["Predictions"]

pd = optional_dependency("study", "pandas")
TEXT = ("case_id", "patient", "site", "part")
ARRAYS = ("repeat", "fold", "truth", "output")
COLUMNS = ("case_id", "patient", "site", "repeat", "fold", "part")


@dataclass(frozen=True)
class Predictions:
    """Predictions of one method: a row for each case, fold and part.

    In the part ``"test"`` each case has one row for each repeat, predicted by the network of a fold that has not seen
    its patient (out-of-fold); in an external cohort, one row. The part ``"val"`` is the validation part of a fold, by
    which epoch, settings and thresholds are chosen.

    Args:
        case_id: case of each of the R rows.
        patient: patient of each row.
        site: site of each row, ``""`` if unknown.
        repeat: repeat of each row, from 0.
        fold: fold of each row; folds of all repeats are numbered consecutively from 0.
        part: ``"test"`` or ``"val"``.
        truth: labels, see :py:class:`Task`.
        output: outputs (R, D), see :py:class:`Task`.
        survival: probability (R, T) of survival at each of ``times``, if the task has it.
        times: times (T,) of ``survival``.
        more: further columns by name (R,), such as the metrics of the attention; NaN if unknown.
    """

    case_id: Sequence[str]
    patient: Sequence[str]
    site: Sequence[str]
    repeat: NDArray[np.int64]
    fold: NDArray[np.int64]
    part: Sequence[str]
    truth: NDArray[Any]
    output: NDArray[np.float64]
    survival: NDArray[np.float64] | None = None
    times: NDArray[np.float64] | None = None
    more: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.case_id)

    def select(self, rows: NDArray[Any]) -> Predictions:
        """Return some of the rows, by a mask or indices (R,)."""
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=int)
        columns: dict[str, Any] = {name: [getattr(self, name)[i] for i in index] for name in TEXT}
        columns |= {name: getattr(self, name)[index] for name in ARRAYS}
        columns["survival"] = None if self.survival is None else self.survival[index]
        return replace(self, **columns, more={name: column[index] for name, column in self.more.items()})

    def of_part(self, part: str) -> Predictions:
        """Return the rows of the part ``"test"`` or ``"val"``."""
        return self.select(np.array([name == part for name in self.part], dtype=bool))

    @staticmethod
    def concatenate(parts: Sequence[Predictions]) -> Predictions:
        """Join the rows of several predictions of the same task; a column that one lacks is NaN there."""
        columns: dict[str, Any] = {name: [v for part in parts for v in getattr(part, name)] for name in TEXT}
        columns |= {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        if parts[0].survival is not None:
            columns["survival"] = np.concatenate([np.asarray(part.survival) for part in parts])
        names = list(dict.fromkeys(name for part in parts for name in part.more))
        more = {n: np.concatenate([p.more.get(n, np.full(len(p), np.nan)) for p in parts]) for n in names}
        return replace(parts[0], **columns, more=more)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as CSV, atomically."""
        frame = pd.DataFrame({name: getattr(self, name) for name in COLUMNS})
        for name, values in (("truth", self.truth), ("output", self.output), ("survival", self.survival)):
            if values is not None:
                columns = values.reshape(len(self), -1)
                keys = self.times if name == "survival" else range(columns.shape[1])
                for key, column in zip(np.asarray(keys), columns.T, strict=True):
                    frame[f"{name}_{key}"] = column
        for name, column in self.more.items():
            frame[f"more_{name}"] = column
        with atomic_path(Path(path)) as temporary:
            frame.to_csv(temporary, index=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read rows that :py:meth:`write` saved."""
        frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values={})
        columns: dict[str, Any] = {name: frame[name].tolist() for name in TEXT}
        columns |= {name: frame[name].to_numpy(dtype=np.int64) for name in ("repeat", "fold")}
        truth, output = _block(frame, "truth")[0], _block(frame, "output")[0]
        (survival, times), (more, names) = _block(frame, "survival"), _block(frame, "more")
        return cls(
            **columns,
            truth=truth[:, 0] if truth.shape[1] == 1 else truth,
            output=output.astype(float),
            survival=survival if times else None,
            times=np.array([float(time) for time in times]) if times else None,
            more={name: more[:, i].astype(float) for i, name in enumerate(names)},
        )


def _block(frame: Any, name: str) -> tuple[NDArray[Any], list[str]]:
    """Return the columns ``name_...`` of a table as an array (R, K), and the rest of their names."""
    columns = [column for column in frame.columns if column.startswith(f"{name}_")]
    values = frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy() if columns else np.empty((len(frame), 0))
    return values, [column.removeprefix(f"{name}_") for column in columns]
