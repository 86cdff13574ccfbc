"""Inference on a list of scans or slides that survives failures and resumes after an interruption."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from monai_mil_ext.utils import RESEARCH_USE, BagKeys, BagStatus, hide_paths, remove_stale_files, write_csv, write_json

from .results_saver import ResultsSaver

__all__ = ["BatchInference", "ScanBatchInference", "SlideBatchInference"]

CASE, STATUS, DONE = str(BagKeys.CASE_ID), str(BagKeys.STATUS), str(BagStatus.DONE)


class BatchInference(ABC):
    """Base class of handlers that save the results of a list of items, with a table and a report of all of them.

    The files of every item are those of ``saver``. ``results.csv`` has a row for each item, including failed ones, and
    ``report.json`` the numbers of items done and failed, by reason, and the seconds per item in this run, including
    loading and writing.

    Items come through :py:class:`monai_mil_ext.transforms.LoadOrStatus`, in batches of one, and
    :py:class:`monai_mil_ext.transforms.PostprocessOrStatus`. An item that can't be loaded, processed or saved because
    of its file (``OSError`` before saving, ``ValueError``) gets a row with the reason, without the path; any other
    error, such as a full disk, ends the run. The files of finished items stay in either case, and a later run with the
    same ``settings`` of ``saver`` processes only the ``pending`` items, those without a prediction of these settings.

    Args:
        saver: saver of each item; do not attach it.
        items: all items of the list, with ``case_id``.

    Raises:
        RuntimeError: by ``finish``, after everything is written, if an item failed or lacks results.
    """

    item_name: ClassVar[str]  # in messages and in the report

    def __init__(self, saver: ResultsSaver, items: Sequence[Mapping[str, Any]]) -> None:
        self.saver = saver
        self.restart(items)

    def restart(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Start with another list of items, and discard the results of the previous one."""
        self.items = {str(item[CASE]): item for item in items}
        remove_stale_files(self.saver.output_dir)
        self.pending = [dict(item) for case, item in self.items.items() if self._read(case) is None]
        self._seconds: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._begin = 0.0

    def attach(self, engine: Engine) -> None:
        """Remove failed items from every iteration of ``engine``, before metrics and savers, and write the others."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start_timer)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._remove_failed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def finish(self) -> None:
        """Write the table and the report of all items, including those that earlier runs finished."""
        rows = [self._row(case) for case in self.items]
        write_csv(self.saver.output_dir / "results.csv", rows)
        write_json(self.saver.output_dir / "report.json", self._report(rows))
        failed = [f"{row[CASE]!r} is {row[STATUS]}" for row in rows if not _is_done(row)]
        incomplete = [f"{row[CASE]!r} is {row[STATUS]}" for row in rows if _is_done(row) and row[STATUS] != DONE]
        if failed or incomplete:
            got = [f"none for {len(failed)} of {len(rows)}"] if failed else []
            got += [f"some without all results for {len(incomplete)} of {len(rows)}"] if incomplete else []
            message = f"every {self.item_name} must get a prediction, got {' and '.join(got)}:"
            raise RuntimeError("\n  ".join([message, *failed, *incomplete]))

    @abstractmethod
    def _columns(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of the table that depend on the kind of item, from the content of ``prediction.json``."""

    def _start_timer(self, engine: Engine) -> None:
        self._begin = time.perf_counter()

    def _remove_failed(self, engine: Engine) -> None:
        pairs = list(zip(engine.state.batch, engine.state.output, strict=True))
        done = []
        for batch, output in pairs:
            status = str(batch.get(STATUS, BagStatus.DONE))
            if status == BagStatus.DONE:
                done.append((batch, output))
            else:
                self._fail(engine, str(batch[CASE]), status)
        engine.state.batch = [batch for batch, _ in done]
        engine.state.output = [output for _, output in done]

    def _save(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = str(batch[CASE])
            try:
                record = self.saver.save({**batch, **output})
            except ValueError as error:
                self._fail(engine, case, f"not written: {error}")
                continue
            self._seconds[case] = time.perf_counter() - self._begin
            engine.logger.info(f"{case}: {self.saver.status(record)}; {RESEARCH_USE}")

    def _fail(self, engine: Engine, case: str, reason: str) -> None:
        paths = [self.items[case][key] for key in ("image", "reference") if self.items[case].get(key)]
        reason = hide_paths(reason, paths, f"the {self.item_name}")
        self._failed[case] = reason
        engine.logger.warning(f"{case}: {reason}")

    def _read(self, case: str) -> dict[str, Any] | None:
        """Return the prediction of a case, if there is one of these settings."""
        try:
            result = json.loads(self.saver.prediction_file(case).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        same = isinstance(result, dict) and result.get("settings") == self.saver.settings
        return result if same and result.get(CASE) == case else None

    def _row(self, case: str) -> dict[str, Any]:
        result = self._read(case)
        row = {CASE: case, "use": RESEARCH_USE}
        if case in self._failed or result is None:
            return {**row, STATUS: self._failed.get(case, "not reached")}
        return {
            **row,
            STATUS: self.saver.status(result),
            "seconds": f"{self._seconds[case]:.2f}" if case in self._seconds else "",
            **self._columns(result),
            "prediction": result["prediction"],
            **{f"probability_{c}": p for c, p in enumerate(result["probability"])},
        }

    def _report(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        seconds = list(self._seconds.values())
        failed = Counter(str(row[STATUS]).split(", got")[0] for row in rows if row[STATUS] != DONE)
        return {
            "use": RESEARCH_USE,
            f"{self.item_name}s": len(rows),
            "done": sum(map(_is_done, rows)),
            "done_in_this_run": len(seconds),
            "failed": dict(failed.most_common()),
            f"seconds_a_{self.item_name}": {"median": median(seconds), "longest": max(seconds)} if seconds else None,
        }


def _is_done(row: Mapping[str, Any]) -> bool:
    return str(row[STATUS]).split(";")[0] == DONE


class ScanBatchInference(BatchInference):
    """Handler for inference on a list of scans, see :py:class:`BatchInference`.

    Args:
        saver: saver of each scan, a :py:class:`ScanResultsSaver`; do not attach it.
        items: all scans, see :py:func:`monai_mil_ext.data.list_scans`.

    Raises:
        RuntimeError: by ``finish``, after everything is written, if a scan failed.
    """

    item_name = "scan"

    def _columns(self, result: Mapping[str, Any]) -> dict[str, Any]:
        position = {entry["slice_index"]: entry["position_mm"] for entry in result["slices"]}
        top = result["top_slices"][0]
        return {"num_slices": len(position), "top_slice": top, "top_slice_mm": position[top]}


class SlideBatchInference(BatchInference):
    """Handler for inference on a list of slides, see :py:class:`BatchInference`.

    Args:
        saver: saver of each slide, a :py:class:`SlideResultsSaver`; do not attach it.
        items: all slides, see :py:func:`monai_mil_ext.data.list_slides`.

    Raises:
        RuntimeError: by ``finish``, after everything is written, if a slide failed.
    """

    item_name = "slide"

    def _columns(self, result: Mapping[str, Any]) -> dict[str, Any]:
        top = (result.get("top_tiles") or [{"x": "", "y": ""}])[0]
        return {"num_tiles": result["num_tiles"], "top_tile_x": top["x"], "top_tile_y": top["y"]}
