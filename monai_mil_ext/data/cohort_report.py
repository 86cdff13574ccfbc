"""What a check of a cohort found."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from monai_mil_ext.utils import write_json

__all__ = ["CohortReport", "Finding"]


class Finding(NamedTuple):
    """One thing that a check found: its place in the table (empty: the whole table), and what is the matter."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


@dataclass
class CohortReport:
    """Items of a cohort and everything that is wrong with it; ``str`` of it is for people, ``write`` for programs.

    Args:
        name: of the table's file.
        num_rows: how many rows it has.
        items: what is sound, one dictionary a bag or patient.
        faults: what has to be repaired before anything is computed.
        left_out: bags that were skipped because the caller said so.
        notes: what may be as meant.

    Example:
        >>> print(CohortReport("cohort.csv", 2, [{"patient": "p"}], [Finding("row 3", "`bag` must be given")]))
        cohort.csv: 2 rows, 1 sound item of 1 patient
        1 fault:
          row 3: `bag` must be given
    """

    name: str
    num_rows: int = 0
    items: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    left_out: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        patients = _count(len({item.get("patient") for item in self.items}), "patient")
        head = f"{self.name}: {_count(self.num_rows, 'row')}, {_count(len(self.items), 'sound item')} of {patients}"
        parts = {"fault": self.faults, "left out": self.left_out, "note": self.notes}
        return "\n".join([head, *(_listed(title, findings) for title, findings in parts.items() if findings)])

    def raise_faults(self) -> None:
        """Raise all faults as one error, if there are any; else warn of what was left out.

        Raises:
            ValueError: when there are faults, or nothing is left.
        """
        if self.faults:
            raise ValueError(f"{self.name} must be a sound cohort, got {_listed('fault', self.faults)}")
        if not self.items:
            raise ValueError(f"{self.name} must have a bag to go on with, got {_listed('left out', self.left_out)}")
        if self.left_out:
            warnings.warn(f"{self.name}: {_listed('left out', self.left_out)}", stacklevel=3)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write counts and findings as JSON."""
        parts = {"faults": self.faults, "left_out": self.left_out, "notes": self.notes}
        lists = {name: [found._asdict() for found in findings] for name, findings in parts.items()}
        write_json(path, {"name": self.name, "rows": self.num_rows, "items": len(self.items), **lists})


def _listed(title: str, findings: Sequence[Finding]) -> str:
    return "\n  ".join([f"{_count(len(findings), title)}:", *map(str, findings)])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 or what == "left out" else f"{number} {what}s"
