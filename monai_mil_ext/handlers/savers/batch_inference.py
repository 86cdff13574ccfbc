"""Inference on a list of scans or slides that survives failures and resumes after an interruption."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from monai_mil_ext.data import fingerprint, item_identity
from monai_mil_ext.handlers.monai_engines import check_evaluator, check_not_attached
from monai_mil_ext.transforms.bags.input_facts import input_columns, input_facts
from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    BagStatus,
    check_case_ids,
    hide_paths,
    remove_stale_files,
    write_csv,
    write_json,
)
from monai_mil_ext.utils.exceptions import case_error, describe_error, root_cause
from monai_mil_ext.utils.files import remove_file
from monai_mil_ext.utils.privacy import item_paths
from monai_mil_ext.visualize import write_index

from .class_columns import class_columns, recorded_output
from .infer_or_status import InferOrStatus
from .instance_set import set_columns
from .item_inference import Outcome, outcomes_of_workers
from .model_columns import model_columns
from .results_saver import ResultsSaver

__all__ = ["BatchInference", "ScanBatchInference", "SlideBatchInference"]

CASE, STATUS, DONE = str(BagKeys.CASE_ID), str(BagKeys.STATUS), str(BagStatus.DONE)
TABLE, REPORT = "results.csv", "report.json"
NOT_REACHED = "not reached"  # status of an item when an error has ended the run before it


class BatchInference(ABC):
    """Base class of handlers that save the results of a list of items, with a table and a report of all of them.

    The files of every item are those of ``saver``. ``results.csv`` has a row for each item, including failed ones, with
    its status, the kind of its file, its shape and spacing and, if it was refused, the option that would help; and
    ``report.json`` the numbers of items done and failed, by reason, and the seconds per item in this run, including
    loading and writing.

    Items come through :py:class:`monai_mil_ext.transforms.LoadOrStatus`, in batches of one, and
    :py:class:`monai_mil_ext.transforms.PostprocessOrStatus`. An item that can't be loaded, predicted or saved gets a
    row with the reason, without the path, and the run goes on: :py:func:`monai_mil_ext.utils.exceptions.case_error`.
    A full disk, a mistake in the program or an interruption ends the run, after :py:meth:`run` has written the table.

    The files of finished items stay, and a later run processes only the ``pending`` items. An item is done before if
    its ``prediction.json`` has the same ``settings`` and options of ``saver``, and the same ``input``: the
    :py:func:`monai_mil_ext.data.item_identity` of its files. Without ``settings``, no item counts as done before. If an
    item fails whose files can be read, results of an earlier run are removed.

    Args:
        saver: saver of each item; do not attach it.
        items: all items of the list, with ``case_id``.

    Raises:
        ValueError: when a case ID is invalid, or two items have the same.
        RuntimeError: by ``run`` and ``finish``, after everything is written, if an item failed or lacks results.
    """

    item_name: ClassVar[str]  # in messages and in the report

    def __init__(self, saver: ResultsSaver, items: Sequence[Mapping[str, Any]]) -> None:
        self.saver = saver
        self.restart(items)

    def restart(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Start with another list of items, and discard the results of the previous one."""
        check_case_ids(items)
        self.items = {str(item[CASE]): item for item in items}
        remove_stale_files(self.saver.output_dir)
        self._options = fingerprint(type(self.saver), self.saver.options())[:12]
        self._inputs = {case: item_identity(item) for case, item in self.items.items()}
        self._done = {case for case in self.items if self._is_done_before(case)}
        self.pending = [dict(item) for case, item in self.items.items() if case not in self._done]
        self._seconds: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._facts: dict[str, dict[str, Any]] = {}  # columns of the input of failed items
        self._begin = 0.0

    def attach(self, engine: Engine) -> None:
        """Remove failed items from every iteration of ``engine``, before metrics and savers, and write the others."""
        check_evaluator(engine)
        check_not_attached(engine, self._remove_failed, IterationEvents.MODEL_COMPLETED)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start_timer)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._remove_failed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def run(
        self,
        engine: Engine,
        scheduler: str | None = None,
        gpus: int = 0,
        postprocessing: Callable[..., Any] | None = None,
    ) -> None:
        """Run ``engine``, whose data are the ``pending`` items, and finish; an error leaves the table of what was done.

        An evaluator has its data; they are not looked at if no item is pending. Workers of Dask get one item after the
        other, and the item of a lost worker is done again; handlers other than this one do not see their items.

        Args:
            engine: evaluator of the items.
            scheduler: ``"local"`` or the address of a Dask scheduler, whose workers infer; ``None`` uses no Dask.
            gpus: number of GPUs of an item, as the resource ``GPU`` of Dask workers.
            postprocessing: postprocessing of the evaluator, for workers.
        """
        for name in (TABLE, REPORT):
            remove_file(self.saver.output_dir / name)
        try:
            if not self.pending:
                self._log_counts(engine)
            elif scheduler is None and not gpus:
                engine.run()
            else:
                self._run_on_workers(engine, scheduler, gpus, postprocessing)
        except BaseException:
            with suppress(OSError):  # of a full disk, whose own error is raised
                self._write()
            raise
        self.finish()

    def finish(self) -> None:
        """Write the table and the report of all items, including those that earlier runs finished."""
        rows = self._write()
        failed = [f"{row[CASE]!r} is {row[STATUS]}{_hint(row)}" for row in rows if not _is_done(row)]
        incomplete = [f"{row[CASE]!r} is {row[STATUS]}" for row in rows if _is_done(row) and row[STATUS] != DONE]
        if failed or incomplete:
            got = [f"none for {len(failed)} of {len(rows)}"] if failed else []
            got += [f"some without all results for {len(incomplete)} of {len(rows)}"] if incomplete else []
            message = f"every {self.item_name} must get a prediction, got {' and '.join(got)}:"
            raise RuntimeError("\n  ".join([message, *failed, *incomplete]))

    def outcome(self) -> Outcome:
        """Return the outcome of the single item of this handler."""
        (case,) = self.items
        return Outcome(None if case in self._done else self._failed.get(case, NOT_REACHED), self._facts, self._seconds)

    def _run_on_workers(self, engine: Any, scheduler: str | None, gpus: int, postprocessing: Any) -> None:
        handler = partial(_handler_of, type(self), self.saver)
        outcomes = outcomes_of_workers(engine, postprocessing, handler, scheduler, gpus, self.saver.output_dir)
        items = engine.data_loader.dataset.data
        for index, outcome in outcomes:
            case = str(items[index][CASE])
            self._facts.update(outcome.facts)
            self._seconds.update(outcome.seconds)
            if outcome.failed is None:
                self._done.add(case)
                engine.logger.info(f"{case}: {self.saver.status(self._read(case) or {})}; {RESEARCH_USE}")
            else:
                self._fail(engine, case, outcome.failed)

    def _write(self) -> list[dict[str, Any]]:
        rows = [self._row(case) for case in self.items]
        write_csv(self.saver.output_dir / TABLE, rows)
        write_json(self.saver.output_dir / REPORT, self._report(rows))
        write_index(self.saver.output_dir, rows, f"Results of {self._count()}", self.saver.class_names)
        return rows

    @abstractmethod
    def _columns(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of the table that depend on the kind of item, from the content of ``prediction.json``."""

    def _start(self, engine: Engine) -> None:
        InferOrStatus.wrap(engine)
        self._log_counts(engine)

    def _log_counts(self, engine: Engine) -> None:
        counts = f"{len(self._done)} done before, {len(self.pending)} to do"
        engine.logger.info(f"{self._count()}: {counts}; {RESEARCH_USE}")

    def _count(self) -> str:
        return f"{len(self.items)} {self.item_name}{'' if len(self.items) == 1 else 's'}"

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
                self._facts[str(batch[CASE])] = _failed_columns(batch)
                self._fail(engine, str(batch[CASE]), status)
        engine.state.batch = [batch for batch, _ in done]
        engine.state.output = [output for _, output in done]

    def _save(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = str(batch[CASE])
            try:
                record = self.saver.save({**batch, **output}, {"input": self._inputs[case], "options": self._options})
            except Exception as error:
                cause = case_error(error, writing=True)
                self._facts[case] = input_columns(input_facts(batch))
                self._fail(engine, case, f"not written: {describe_error(cause or root_cause(error))}")
                if cause is None:
                    raise
                continue
            self._done.add(case)
            self._seconds[case] = time.perf_counter() - self._begin
            engine.logger.info(f"{case}: {self.saver.status(record)}; {RESEARCH_USE}")

    def _fail(self, engine: Engine, case: str, reason: str) -> None:
        reason = hide_paths(reason, item_paths(self.items[case]), f"the {self.item_name}")
        self._failed[case] = reason
        if self._inputs[case] is not None:  # else the files may be absent for now
            with suppress(OSError):  # a folder that can't be written is a reason of its own
                self.saver.discard(case)
        engine.logger.warning(f"{case}: {reason}")

    def _is_done_before(self, case: str) -> bool:
        """Return whether there is a prediction of this input with these settings and options."""
        now = {"settings": self.saver.settings, "input": self._inputs[case], "options": self._options, CASE: case}
        result = self._read(case)
        is_same = result is not None and None not in now.values() and all(result.get(k) == v for k, v in now.items())
        return result is not None and is_same and self.saver.is_complete(result)

    def _read(self, case: str) -> dict[str, Any] | None:
        try:
            result = json.loads(self.saver.prediction_file(case).read_text(encoding="utf-8"))
        except (OSError, RecursionError, ValueError):  # as none of our writers leaves it
            return None
        return result if isinstance(result, dict) else None

    def _row(self, case: str) -> dict[str, Any]:
        result = self._read(case) if case in self._done else None
        row = {CASE: case, "use": RESEARCH_USE}
        if result is None:
            return {**row, STATUS: self._failed.get(case, NOT_REACHED), **self._facts.get(case, {})}
        return {
            **row,
            STATUS: self.saver.status(result),
            **input_columns(result),
            "seconds": f"{self._seconds[case]:.2f}" if case in self._seconds else "",
            **self._columns(result),
            **self._output_columns(result),
            **set_columns(result),
            **{key: result[key] for key in (str(BagKeys.SOURCE_CHECK),) if key in result},
            **model_columns(result.get("model")),
        }

    def _output_columns(self, result: Mapping[str, Any]) -> dict[str, Any]:
        task, points, edges = self.saver.task, self.saver.operating_points, self.saver.bin_edges
        return class_columns(recorded_output(result), result.get("class_names"), task, points, edges)

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


def _hint(row: Mapping[str, Any]) -> str:
    return f" ({row[BagKeys.OPTION]})" if row.get(BagKeys.OPTION) else ""


def _failed_columns(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the input of an item that failed while it was loaded, or in the network."""
    stated = {key: [float(v) for v in item[key]] for key in ("shape", "spacing") if key in item}
    facts = {**input_facts(item), **stated}
    return input_columns(facts, str(item.get(BagKeys.OPTION, "")))


def _is_done(row: Mapping[str, Any]) -> bool:
    return str(row[STATUS]).split(";")[0] == DONE


def _handler_of(kind: type[BatchInference], saver: ResultsSaver, item: Mapping[str, Any]) -> BatchInference:
    """Return a handler of a single item, also one that was done before with other settings."""
    return kind(saver, [item])


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
        return {"num_slices": len(position), "top_slice_number": top + 1, "top_slice_mm": position[top]}


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
