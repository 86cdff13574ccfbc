"""Results that are made of the kept answers: paired differences, and sets of slices with a guarantee."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.workflows import RESULTS, ROOT
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils import write_json

from .pairs import PAIRS, pair_rows
from .sets import HEADS, METHODS, SHIFT_HEADS, set_rows, shift_rows
from .settings import TESTS, Protocol

__all__ = ["write_pairs", "write_sets"]

Answers = Callable[[str, str], Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]]  # by cohort and test
COMMAND = "scripts/reproduce lesions --stage tables"
COHORTS = {"one": "trained on 1 lesion", "many": "trained on 1 to 3 lesions"}
PAIR_NOTE = (
    "Differences of the means over {seeds} seeds, in brackets the 95 % interval of a paired bootstrap over test scans; "
    "bag AUROC is over all scans, slice AUROC and AP are means over the scans with lesions."
)
SET_NOTE = (
    "Trained and tested on scans with one lesion: means over {splits} random halves of {count} scans with a lesion of "
    "{seeds} seeds, one half for calibration. Without ties the mean coverage is in {bands} with a probability of 99 %, "
    "and 97.5 % of the splits are not below their band; ranks have ties, so that coverage is higher. *No set* is the "
    "share of scans in which more than half of the slices are needed. The ratios of sizes are those of a calibration "
    "with all scans, with 95 % intervals by drawing scans."
)
SHIFT_NOTE = (
    "Guarantee of 90 %, calibrated on heads with one lesion, for other heads of these sets: mean coverage over "
    "{splits} halves, and the share of them in which the test of `set_coverage` reports a shift, which is at most .05 "
    "without one."
)


def write_pairs(answers: Answers, protocol: Protocol, folder: Path = RESULTS, num_samples: int = 1000) -> None:
    """Write a result for each group of pairs: all cohorts and tests."""
    for group, pairs in PAIRS.items():
        start, rows = time.process_time(), []
        for cohort in protocol.cohorts:
            for test in protocol.tests:
                found = pair_rows(answers(cohort, test), pairs, f"{COHORTS[cohort]}, {TESTS[test]}", num_samples)
                rows += [{**row, "cohort": cohort, "test": test} for row in found]
        note = PAIR_NOTE.format(seeds=len(protocol.seeds))
        _write(folder / f"lesions_{group}.json", protocol, start, note, rows)


def write_sets(
    answers: Answers, protocol: Protocol, folder: Path = RESULTS, splits: int = 200, num_samples: int = 1000
) -> None:
    """Write the coverage and size of sets on scans with one lesion, and their coverage on the other tests."""
    start, calibration = time.process_time(), answers("one", "one")
    rows = set_rows(calibration, splits, num_samples)
    count = sum(row["label"] for part in next(iter(calibration.values())).values() for row in part)
    bands = " and ".join(f"[{low:.3f}, {high:.3f}]" for low, high in rows[0]["bands"].values())
    note = SET_NOTE.format(splits=splits, count=count, seeds=len(protocol.seeds), bands=bands)
    _write(folder / "lesions_sets.json", protocol, start, note, rows, HEADS)
    start = time.process_time()
    others = {head: _of_sets(answers("one", test)) for test, head in TESTS.items() if test != "one"}
    rows = shift_rows(calibration, others, splits)
    _write(folder / "lesions_sets_shift.json", protocol, start, SHIFT_NOTE.format(splits=splits), rows, SHIFT_HEADS)


def _of_sets(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {name: of for name, of in rows.items() if name in METHODS}


def _write(
    path: Path,
    protocol: Protocol,
    start: float,
    note: str,
    rows: Sequence[Mapping[str, Any]],
    heads: Mapping[str, str] | None = None,
) -> None:
    known = collect_provenance(COMMAND, protocol.seeds, repository=ROOT)
    seconds = round(time.process_time() - start, 1)
    write_json(path, {**known, "cpu_seconds": seconds, "heads": heads or {}, "note": note, "rows": rows})
