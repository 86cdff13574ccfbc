"""Log of the test sets that were read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from experiments.workflows import RESULTS, ROOT
from monai_mil_ext.apps.study import read_commit

__all__ = ["LOG", "log_reads"]

LOG = RESULTS / "lesions_reads.jsonl"


def log_reads(sets: Sequence[tuple[str, int]], purpose: str, again: str | None = None, log: Path | None = None) -> None:
    """Record that test sets are read, before they are.

    Args:
        sets: name and seed of each test set.
        purpose: what is tested.
        again: reason to read sets that were read before.
        log: the file; ``None`` takes that of docs/results.

    Raises:
        RuntimeError: if a set was read before, unless ``again`` states the reason to repeat it.
    """
    file = log or LOG
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(line["test"], line["seed"]): line["time"] for line in lines}
    before = [entry for entry in sets if entry in known]
    if before and not again:
        name, seed = before[0]
        raise RuntimeError(f"`again` must say why {name!r} of seed {seed} is read once more, after {known[before[0]]}.")
    now, commit = datetime.now(UTC).isoformat(timespec="seconds"), read_commit(ROOT)
    reason = {"again": again} if again else {}
    with file.open("a") as stream:
        for name, seed in sets:
            line = {"time": now, "test": name, "seed": seed, "purpose": purpose, "commit": commit, **reason}
            stream.write(json.dumps(line) + "\n")
