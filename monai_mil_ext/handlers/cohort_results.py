"""An inference on many scans that goes on when one fails, and goes on where it was killed."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from monai_mil_ext.transforms.bag_or_status import DONE, STATUS
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, atomic_path, remove_stale_files, write_json

from .scan_results import ScanResultsSaver
from .slide_results import SlideResultsSaver

__all__ = ["CohortResults"]

CASE = str(BagKeys.CASE_ID)


class CohortResults:
    """Writes the files of every scan, ``results.csv`` with a row for each, those without an answer too, and a report.

    Items come through :py:class:`monai_mil_ext.transforms.BagOrStatus`, in batches of one. What can't be loaded or
    saved for its own fault (``OSError`` while loading, ``ValueError``) gets a row with the reason, without the path;
    any other error, a full disk among them, ends the run. Whatever ends it, the files of the scans that were done
    stay, each whole, and a later run with the same ``settings`` of ``saver`` asks ``pending`` scans only: those
    without a JSON file of these settings.

    ``report.json`` counts what is done, and what failed by reason, and tells seconds a scan of this run, loading and
    writing included.

    Args:
        saver: of each scan; it is not attached itself.
        scans: all items of the cohort, see :py:func:`monai_mil_ext.data.load_scans`.

    Raises:
        RuntimeError: by ``finish``, when all is written, if a scan got no answer.
    """

    word = "scan"  # what an item is called

    def __init__(self, saver: ScanResultsSaver | SlideResultsSaver, scans: Sequence[Mapping[str, Any]]) -> None:
        self.saver = saver
        self.scans = {str(scan[CASE]): scan for scan in scans}
        remove_stale_files(saver.output_dir)
        self.pending = [dict(scan) for case, scan in self.scans.items() if self._answer(case) is None]
        self._seconds: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._begin = 0.0

    def attach(self, engine: Engine) -> None:
        """Take what failed out of every iteration of ``engine``, before metrics and savers, and write the rest."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._take_out)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def _start(self, engine: Engine) -> None:
        self._begin = time.perf_counter()

    def _take_out(self, engine: Engine) -> None:
        items = list(zip(engine.state.batch, engine.state.output, strict=True))
        for batch, _ in items:
            if batch.get(STATUS, DONE) != DONE:
                self._fail(engine, str(batch[CASE]), str(batch[STATUS]))
        done = [(batch, output) for batch, output in items if batch.get(STATUS, DONE) == DONE]
        engine.state.batch = [batch for batch, _ in done]
        engine.state.output = [output for _, output in done]

    def _save(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = str(batch[CASE])
            try:
                self.saver.save({**batch, **output})
            except ValueError as error:
                self._fail(engine, case, f"not written: {error}")
                continue
            self._seconds[case] = time.perf_counter() - self._begin
            engine.logger.info(f"{case}: done; {RESEARCH_USE}")

    def _fail(self, engine: Engine, case: str, reason: str) -> None:
        for key in ("image", "reference"):
            path = self.scans[case].get(key)
            for name in (path, Path(path).name) if path else ():
                reason = reason.replace(repr(name), f"the {self.word}").replace(str(path), f"the {self.word}")
        self._failed[case] = reason
        engine.logger.warning(f"{case}: {reason}")

    def _answer(self, case: str) -> dict[str, Any] | None:
        try:
            answer = json.loads(self.saver.answer_file(case).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        same = isinstance(answer, dict) and answer.get("settings") == self.saver.settings
        return answer if same and answer.get(CASE) == case else None

    def finish(self) -> None:
        """Write table and report of all scans, those of earlier runs too."""
        rows = [self._row(case) for case in self.scans]
        names = max((list(row) for row in rows), key=len)
        with (
            atomic_path(self.saver.output_dir / "results.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=names)
            writer.writeheader()
            writer.writerows(rows)
        write_json(self.saver.output_dir / "report.json", self._report(rows))
        failed = [f"{row[CASE]!r} is {row['status']}" for row in rows if row["status"] != DONE]
        if failed:
            count = f"{len(failed)} of {len(rows)}"
            raise RuntimeError("\n  ".join([f"every {self.word} must get an answer, got none for {count}:", *failed]))

    def _row(self, case: str) -> dict[str, Any]:
        answer = self._answer(case)
        row = {CASE: case, "use": RESEARCH_USE}
        if case in self._failed or answer is None:
            return {**row, "status": self._failed.get(case, "not reached")}
        seconds = f"{self._seconds[case]:.2f}" if case in self._seconds else ""
        places = {entry["slice_index"]: entry["position_mm"] for entry in answer["slices"]}
        probability = {f"probability_{c}": p for c, p in enumerate(answer["probability"])}
        top = {"num_slices": len(places), "top_slice": answer["top_slices"][0]}
        return {
            **row,
            "status": DONE,
            "seconds": seconds,
            **top,
            "top_slice_mm": places[answer["top_slices"][0]],
            "prediction": answer["prediction"],
            **probability,
        }

    def _report(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        seconds = list(self._seconds.values())
        reasons = Counter(str(row["status"]).split(", got")[0] for row in rows if row["status"] != DONE)
        return {
            "use": RESEARCH_USE,
            f"{self.word}s": len(rows),
            "done": sum(row["status"] == DONE for row in rows),
            "done_in_this_run": len(seconds),
            "failed": dict(reasons.most_common()),
            f"seconds_a_{self.word}": {"median": median(seconds), "longest": max(seconds)} if seconds else None,
        }
