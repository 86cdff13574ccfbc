"""Saver of predictions for many bags: a row for every bag, including failed ones, and optionally attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from monai_mil_ext.handlers.monai_engines import check_evaluator, check_not_attached
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, BagStatus, drop_padding, write_csv

from .gather import gather_rows

__all__ = ["BagPredictionsSaver"]

STATUS = str(BagKeys.STATUS)
LINES = "lines"  # key of the lines of instances in a row, removed before the row is written


class BagPredictionsSaver:
    """Saver that writes ``predictions.csv``: case id, status, number of instances and probabilities of every bag.

    It reads decollated items: ``pred`` (C,) probabilities, and, if present, ``mask`` (N,), ``case_id`` and the
    ``status`` of :py:class:`monai_mil_ext.transforms.LoadOrStatus` (without it, a bag is done). A bag that is not
    done is removed from the iteration, so that no metric and no other saver sees it. When the run has finished and
    everything is written, an error names these bags, so that the exit status of a program is not 0. Attach it first.
    In a distributed run the rows of all ranks are gathered; the first rank writes.

    With ``instances``, ``instances.csv`` has the case id, index (from 0, as in the bag's file) and attention of
    every valid instance of every bag that is done. For ``attention`` (N, A) it has the mean over A, and each head.

    Args:
        output_dir: folder of the files, which are replaced atomically.
        instances: whether to write the attention of each instance; a network without attention then raises.

    Raises:
        RuntimeError: at the end of a run in which a bag failed.
        ValueError: when ``instances`` is set and a bag has no attention.
    """

    def __init__(self, output_dir: str, instances: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.instances = instances
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect after every iteration of ``engine`` and write when it has finished."""
        check_evaluator(engine)
        check_not_attached(engine, self._collect, IterationEvents.MODEL_COMPLETED)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = []
        if not engine.has_event_handler(self._raise, Events.COMPLETED):
            engine.add_event_handler(
                Events.COMPLETED, self._raise
            )  # registered at the start of the run, so after all other savers

    def _collect(self, engine: Engine) -> None:
        items = list(zip(engine.state.batch, engine.state.output, strict=True))
        self._rows += [_row({**batch, **output}, self.instances) for batch, output in items]
        done = [(batch, output) for batch, output in items if batch.get(STATUS, BagStatus.DONE) == BagStatus.DONE]
        engine.state.batch = [batch for batch, _ in done]
        engine.state.output = [output for _, output in done]

    def _write(self, engine: Engine) -> None:
        self._rows = gather_rows(self._rows, lambda row: str(row["case_id"]))
        lines = [line for row in self._rows for line in row.pop(LINES, [])]
        if idist.get_rank() == 0:
            for name, rows in (("predictions.csv", self._rows), ("instances.csv", lines)):
                if rows:
                    write_csv(self.output_dir / name, rows)

    def _raise(self, engine: Engine) -> None:
        failed = [f"{row['case_id']!r} is {row[STATUS]}" for row in self._rows if row[STATUS] != BagStatus.DONE]
        if failed:
            count = f"{len(failed)} of {len(self._rows)}"
            raise RuntimeError("\n  ".join([f"every bag must get a prediction, got none for {count}:", *failed]))


def _row(item: Mapping[str, Any], instances: bool) -> dict[str, Any]:
    status = str(item.get(STATUS, BagStatus.DONE))
    row = {"case_id": str(item.get(BagKeys.CASE_ID, "")), "use": RESEARCH_USE, STATUS: status}
    if status != BagStatus.DONE:
        return row
    mask = item.get(BagKeys.MASK)
    probability = torch.as_tensor(item["pred"]).detach().float().cpu().tolist()
    size = {} if mask is None else {"num_instances": int(torch.as_tensor(mask).sum())}
    lines = {LINES: list(_instance_lines(row["case_id"], item))} if instances else {}
    return {**row, **size, **{f"probability_{c}": p for c, p in enumerate(probability)}, **lines}


def _instance_lines(case_id: str, item: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    if BagKeys.ATTENTION not in item:
        raise ValueError(f"`instances` must be False for a network without attention, got none of {case_id!r}.")
    attention = torch.as_tensor(item[BagKeys.ATTENTION]).detach().float().cpu().flatten(1)  # (N, A)
    for i in drop_padding(torch.arange(len(attention)), item).tolist():
        heads = attention[i].tolist()
        columns = {f"attention_{a}": value for a, value in enumerate(heads)} if len(heads) > 1 else {}
        yield {"case_id": case_id, "instance": i, "attention": sum(heads) / len(heads), **columns, "use": RESEARCH_USE}
