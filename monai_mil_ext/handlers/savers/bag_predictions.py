"""Saver of predictions for many bags: a row for every bag, including failed ones, and optionally attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from monai_mil_ext.handlers.monai_engines import check_evaluator, check_not_attached
from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    BagStatus,
    check_choice,
    check_class_names,
    class_probabilities,
    drop_padding,
    head_mean,
    write_csv,
)
from monai_mil_ext.utils.probabilities import TASKS
from monai_mil_ext.utils.remote import as_path

from .class_columns import class_columns
from .gather import gather_rows
from .infer_or_status import InferOrStatus
from .instance_set import IN_SET, INSTANCE_SET, instance_set, set_columns
from .item_inference import KILLED, outcomes_of_workers
from .model_columns import model_columns

__all__ = ["BagPredictionsSaver"]

STATUS = str(BagKeys.STATUS)
LINES = "lines"  # key of the lines of instances in a row, removed before the row is written


class BagPredictionsSaver:
    """Saver that writes ``predictions.csv``: case id, status, number of instances and prediction of every bag.

    It reads decollated items: ``pred`` (C,), probabilities or values of ``task`` (one probability is that of the
    second of two classes), and, if present, ``mask`` (N,), ``case_id`` and the ``status`` of
    :py:class:`monai_mil_ext.transforms.LoadOrStatus` (without it, a bag is done), or of :py:class:`InferOrStatus` if
    the network fails; the postprocessing must then be a :py:class:`monai_mil_ext.transforms.PostprocessOrStatus`.
    ``notes`` of a bag, such as that all its features are one value, stand in a column. A bag that is not done is
    removed from the iteration, so that no metric and no other saver sees it. When the run has finished and everything
    is written, an error names these bags, so that the exit status of a program is not 0. Attach it first. In a
    distributed run the rows of all ranks are gathered; the first rank writes.

    With ``instances``, ``instances.csv`` has the case id, index (from 0, as in the bag's file) and attention of
    every valid instance of every bag that is done. For ``attention`` (N, A) it has the mean over A, and each head.

    With a model that has ``conformal.json``, see :py:class:`monai_mil_ext.handlers.InstanceSetHandler`, ``set_size``
    and ``set_confidence`` of a bag state how many instances include one with a lesion with that probability, or
    ``set_sentence`` why there is no such set, and ``in_set`` of an instance is 1 or 0.

    Args:
        output_dir: folder of the files, which are replaced atomically, or its address in an object store.
        instances: whether to write the attention of each instance; a network without attention then raises.
        class_names: names of the C classes, for the column ``predicted_class``.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.

    Raises:
        RuntimeError: at the end of a run in which a bag failed.
        ValueError: when the task is unknown, ``pred`` are not probabilities of it, such as logits, ``class_names`` and
            classes differ in number, ``instances`` is set and a bag has no attention, or bags of two processes have the
            same case id.
    """

    def __init__(
        self,
        output_dir: str,
        instances: bool = False,
        class_names: Sequence[str] | None = None,
        task: str = "classification",
        model: Mapping[str, Any] | None = None,
    ) -> None:
        check_choice("task", task, TASKS)
        self.output_dir = as_path(output_dir)
        self.instances = instances
        self.class_names = None if class_names is None else tuple(map(str, class_names))
        self.task = task
        self.model = model_columns(model)
        self.operating_points = (model or {}).get("operating_points", ())
        self.bin_edges = (model or {}).get("bin_edges", ())
        self.sets = (model or {}).get(INSTANCE_SET)
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect after every iteration of ``engine`` and write when it has finished."""
        check_evaluator(engine)
        check_not_attached(engine, self._collect, IterationEvents.MODEL_COMPLETED)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def run(
        self,
        engine: Engine,
        scheduler: str | None = None,
        gpus: int = 0,
        postprocessing: Callable[..., Any] | None = None,
    ) -> None:
        """Run ``engine``, to which this saver is attached, here or on the workers of Dask, with the same files.

        Workers infer one bag after the other, and the bag of a lost worker is inferred again; handlers other than this
        one do not see their bags.

        Args:
            engine: evaluator of the bags.
            scheduler: ``"local"`` or the address of a Dask scheduler, whose workers infer; ``None`` uses no Dask.
            gpus: number of GPUs of a bag, as the resource ``GPU`` of Dask workers.
            postprocessing: postprocessing of the evaluator, for workers.
        """
        if scheduler is None and not gpus:
            engine.run()
            return
        handler, rows = partial(_BagRows, self), {}
        items = [*engine.data_loader.dataset.data]
        for index, outcome in outcomes_of_workers(engine, postprocessing, handler, scheduler, gpus, self.output_dir):
            killed = {str(BagKeys.CASE_ID): items[index].get(BagKeys.CASE_ID, ""), STATUS: KILLED.failed}
            rows[index] = [self._row(killed)] if outcome is KILLED else outcome
            for row in rows[index]:
                engine.logger.info(f"{len(rows)} of {len(items)}: {row['case_id']}: {row[STATUS]}; {RESEARCH_USE}")
        self._rows = [row for index in sorted(rows) for row in rows[index]]
        self._write(engine)
        self._raise(engine)

    def _start(self, engine: Engine) -> None:
        self._rows = []
        InferOrStatus.wrap(engine)
        if not engine.has_event_handler(self._raise, Events.COMPLETED):
            engine.add_event_handler(
                Events.COMPLETED, self._raise
            )  # registered at the start of the run, so after all other savers

    def _collect(self, engine: Engine) -> None:
        items = list(zip(engine.state.batch, engine.state.output, strict=True))
        self._rows += [self._row({**batch, **output}) for batch, output in items]
        done = [(batch, output) for batch, output in items if batch.get(STATUS, BagStatus.DONE) == BagStatus.DONE]
        engine.state.batch = [batch for batch, _ in done]
        engine.state.output = [output for _, output in done]

    def _write(self, engine: Engine) -> None:
        self._rows = gather_rows(self._rows, lambda row: str(row["case_id"]), _content)
        lines = [line for row in self._rows for line in row.pop(LINES, [])]
        if idist.get_rank() == 0:
            for name, rows in (("predictions.csv", self._rows), ("instances.csv", lines)):
                if rows:
                    write_csv(self.output_dir / name, [{**row, **self.model} for row in rows])

    def _row(self, item: Mapping[str, Any]) -> dict[str, Any]:
        status = str(item.get(STATUS, BagStatus.DONE))
        row = {"case_id": str(item.get(BagKeys.CASE_ID, "")), "use": RESEARCH_USE, STATUS: status}
        if BagKeys.SOURCE_CHECK in item:
            row[str(BagKeys.SOURCE_CHECK)] = str(item[BagKeys.SOURCE_CHECK])
        if item.get(BagKeys.NOTES):
            row[str(BagKeys.NOTES)] = str(item[BagKeys.NOTES])
        if status != BagStatus.DONE:
            return row
        mask = item.get(BagKeys.MASK)
        output = class_probabilities(item["pred"], self.task).tolist()
        check_class_names(self.class_names, len(output))
        columns = class_columns(output, self.class_names, self.task, self.operating_points, self.bin_edges)
        size = {} if mask is None else {"num_instances": int(torch.as_tensor(mask).sum())}
        chosen = self._set(item)
        lines = {LINES: list(_instance_lines(row["case_id"], item, chosen))} if self.instances else {}
        return {**row, **size, **columns, **set_columns(chosen), **_sentence(chosen), **lines}

    def _set(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the instances that hold a lesion with a stated probability, if the model has a calibration of them."""
        if self.sets is None or BagKeys.ATTENTION not in item:
            return {}
        scores = head_mean(torch.as_tensor(item[BagKeys.ATTENTION]).detach().float().cpu())
        scored = {**item, str(BagKeys.SCORES): scores}
        return {INSTANCE_SET: instance_set(scored, self.sets, str(item.get(BagKeys.SOURCE_CHECK, "")))}

    def _raise(self, engine: Engine) -> None:
        failed = [f"{row['case_id']!r} is {row[STATUS]}" for row in self._rows if row[STATUS] != BagStatus.DONE]
        if failed:
            count = f"{len(failed)} of {len(self._rows)}"
            raise RuntimeError("\n  ".join([f"every bag must get a prediction, got none for {count}:", *failed]))


class _BagRows:
    """Handler of a bag that keeps its row, and writes nothing, by the options of a saver."""

    def __init__(self, saver: BagPredictionsSaver, item: Mapping[str, Any]) -> None:
        self.saver = copy(saver)
        self.saver._rows = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, InferOrStatus.wrap)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.saver._collect)

    def outcome(self) -> list[dict[str, Any]]:
        return self.saver._rows


def _content(row: Mapping[str, Any]) -> list[float]:
    """Return the numbers by which two bags differ."""
    numbers = [value for value in row.values() if isinstance(value, float)]
    return [float(row.get("num_instances", -1)), *numbers]


def _sentence(chosen: Mapping[str, Any]) -> dict[str, str]:
    return {"set_sentence": chosen[INSTANCE_SET]["sentence"]} if chosen else {}


def _instance_lines(case_id: str, item: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    if BagKeys.ATTENTION not in item:
        raise ValueError(f"`instances` must be False for a network without attention, got none of {case_id!r}.")
    attention = torch.as_tensor(item[BagKeys.ATTENTION]).detach().float().cpu().flatten(1)  # (N, A)
    members = set(chosen.get(INSTANCE_SET, {}).get("indices", ()))
    rows = attention.tolist()  # at once, since a tensor takes microseconds for each instance
    for place, i in enumerate(drop_padding(torch.arange(len(attention)), item).tolist()):
        heads = rows[i]
        columns = {f"attention_{a}": value for a, value in enumerate(heads)} if len(heads) > 1 else {}
        columns |= {IN_SET: int(place in members)} if chosen else {}
        yield {"case_id": case_id, "instance": i, "attention": sum(heads) / len(heads), **columns, "use": RESEARCH_USE}
