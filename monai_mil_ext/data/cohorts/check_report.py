"""Report of a cohort check."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import distributed

from monai_mil_ext.utils import check_choice, write_csv, write_json

__all__ = ["CohortReport", "Issue"]

LEFT_OUT, COLUMNS = "left_out.csv", ("case", "reason")
HINT = 'Correct the cohort, or leave these cases out with `on_bad` "skip".'

logger = logging.getLogger(__name__)


class Issue(NamedTuple):
    """Issue in a cohort: its location (a row or a property; or empty), a description, and the case that has it.

    Without a ``case``, the whole cohort has the issue, which leaving out one case does not resolve.
    """

    location: str
    message: str
    case: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


@dataclass
class CohortReport:
    """Report of a cohort check: valid items and issues, as text by ``str`` and as JSON by ``write``.

    Args:
        name: name of the table's file.
        num_rows: number of its rows.
        items: valid items, one dictionary per bag or patient.
        errors: issues that must be resolved before the cohort can be used.
        skipped: issues of the cases that are left out, see :py:meth:`usable_items`.
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

    def usable_items(
        self, on_bad: str = "refuse", output_dir: str | os.PathLike[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the valid items, if there are no errors or ``on_bad`` leaves out the cases that have them.

        Errors of the whole cohort, such as a missing column, a bag in two rows or features of several encoders, are
        always raised.

        Args:
            on_bad: ``"refuse"`` raises one exception with all errors; ``"skip"`` leaves out the cases that have errors,
                and logs them.
            output_dir: folder of the table ``left_out.csv`` (case, reason) of these cases, written by the first process
                if there are any; that of an earlier run is removed.

        Raises:
            ValueError: when there are errors that ``on_bad`` does not resolve, or no item is left.
        """
        check_choice("on_bad", on_bad, ("refuse", "skip"))
        if on_bad == "skip":
            self.skipped += [issue for issue in self.errors if issue.case]
            self.errors = [issue for issue in self.errors if not issue.case]
        self.raise_if_errors()
        if _is_first_process():
            self._log()
            if output_dir is not None:
                self._write_left_out(Path(output_dir) / LEFT_OUT)
        return self.items

    def raise_if_errors(self) -> None:
        """Raise one exception with all errors.

        Raises:
            ValueError: when there are errors, or no item is left.
        """
        if self.errors:
            hint = f"\n{HINT}" if all(issue.case for issue in self.errors) else ""
            raise ValueError(f"{self.name} must be a valid cohort, got {_listed('error', self.errors)}{hint}")
        if not self.items:
            raise ValueError(f"{self.name} must have at least one usable bag, got {_listed('skipped', self.skipped)}")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write counts and issues as JSON."""
        parts = {"errors": self.errors, "skipped": self.skipped, "notes": self.notes}
        lists = {name: [issue._asdict() for issue in issues] for name, issues in parts.items()}
        write_json(path, {"name": self.name, "rows": self.num_rows, "items": len(self.items), **lists})

    def _log(self) -> None:
        """Log the notes on properties of the files, such as several resolutions, and the skipped cases."""
        for note in self.notes:
            if note.location:
                logger.warning(f"{self.name}: {note}")
        if self.skipped:
            cases = f"{len(self._reasons())} of {_count(self.num_rows, 'case')}"
            logger.warning("\n  ".join([f"{self.name}: left out {cases}:", *map(str, self.skipped)]))

    def _reasons(self) -> dict[tuple[str, str], list[str]]:
        """Return the reasons for leaving out each case; two rows may name the same case."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for location, message, case in self.skipped:
            reasons.setdefault((location, case or location), []).append(message)
        return reasons

    def _write_left_out(self, path: Path) -> None:
        rows = [{"case": case, "reason": "; ".join(texts)} for (_, case), texts in self._reasons().items()]
        if rows:
            write_csv(path, rows, COLUMNS)
        else:
            path.unlink(missing_ok=True)


def _is_first_process() -> bool:
    return not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0


def _listed(title: str, issues: Sequence[Issue]) -> str:
    return "\n  ".join([f"{_count(len(issues), title)}:", *map(str, issues)])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 or noun == "skipped" else f"{number} {noun}s"
