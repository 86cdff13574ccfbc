"""Report of a cohort check."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from monai_mil_ext.utils import write_json

__all__ = ["CohortReport", "Issue"]


class Issue(NamedTuple):
    """Issue in a cohort table: its location (empty for the whole table) and a description."""

    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


@dataclass
class CohortReport:
    """Report of a cohort check: valid items and issues, as text by ``str`` and as JSON by ``write``.

    Args:
        name: name of the table's file.
        num_rows: number of its rows.
        items: valid items, one dictionary per bag or patient.
        errors: issues that must be fixed before the cohort can be used.
        skipped: bags that were skipped, as :py:class:`CohortChecks` asks.
        notes: issues that may be intended.

    Example:
        >>> print(CohortReport("cohort.csv", 2, [{"patient": "p"}], [Issue("row 3", "`bag` must be given")]))
        cohort.csv: 2 rows, 1 valid item of 1 patient
        1 error:
          row 3: `bag` must be given
    """

    name: str
    num_rows: int = 0
    items: list[dict[str, Any]] = field(default_factory=list)
    errors: list[Issue] = field(default_factory=list)
    skipped: list[Issue] = field(default_factory=list)
    notes: list[Issue] = field(default_factory=list)

    def __str__(self) -> str:
        patients = _count(len({item.get("patient") for item in self.items}), "patient")
        head = f"{self.name}: {_count(self.num_rows, 'row')}, {_count(len(self.items), 'valid item')} of {patients}"
        parts = {"error": self.errors, "skipped": self.skipped, "note": self.notes}
        return "\n".join([head, *(_listed(title, issues) for title, issues in parts.items() if issues)])

    def raise_if_errors(self) -> None:
        """Raise one exception with all errors; if there are none, warn of skipped bags.

        Raises:
            ValueError: when there are errors, or no item is left.
        """
        if self.errors:
            raise ValueError(f"{self.name} must be a valid cohort, got {_listed('error', self.errors)}")
        if not self.items:
            raise ValueError(f"{self.name} must have at least one usable bag, got {_listed('skipped', self.skipped)}")
        if self.skipped:
            warnings.warn(f"{self.name}: {_listed('skipped', self.skipped)}", stacklevel=3)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write counts and issues as JSON."""
        parts = {"errors": self.errors, "skipped": self.skipped, "notes": self.notes}
        lists = {name: [issue._asdict() for issue in issues] for name, issues in parts.items()}
        write_json(path, {"name": self.name, "rows": self.num_rows, "items": len(self.items), **lists})


def _listed(title: str, issues: Sequence[Issue]) -> str:
    return "\n  ".join([f"{_count(len(issues), title)}:", *map(str, issues)])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 or noun == "skipped" else f"{number} {noun}s"
