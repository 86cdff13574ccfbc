"""Saves what an inference answered: a row for every bag, those without an answer too, and the attention within."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from monai_mil_ext.transforms.bag_or_status import DONE, STATUS
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, atomic_path

__all__ = ["BagPredictionsSaver"]

LINES = "lines"  # of a row: those of its instances, until they are written


class BagPredictionsSaver:
    """Writes ``predictions.csv``: case id, status, number of instances and probabilities of every bag.

    It reads decollated items: ``pred`` (C,) probabilities, and, where they are, ``mask`` (N,), ``case_id`` and the
    ``status`` that :py:class:`monai_mil_ext.transforms.BagOrStatus` gave (without it, a bag is done). A bag that is not
    done is taken out of the iteration, so no metric and no other saver sees it; and when all is through and written,
    the run ends with an error that names it, so that a program's exit status tells. Attach it first. In a distributed
    run the rows of all ranks are gathered; the first rank writes.

    With ``instances`` there is ``instances.csv`` too: case id, number (from 0, as in the bag's file) and attention of
    every real instance of every bag that is done. Of ``attention`` (N, A) it has the mean over A, and each row.

    Args:
        output_dir: folder of the files, each replaced as a whole.
        instances: whether to write the attention of each instance; a network without attention then raises.

    Raises:
        RuntimeError: at the end of a run in which a bag got no answer.
        ValueError: when instances are asked for and a bag has no attention.
    """

    def __init__(self, output_dir: str, instances: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.instances = instances
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect at every iteration of ``engine`` and write when it is through."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = []
        if not engine.has_event_handler(self._raise, Events.COMPLETED):
            engine.add_event_handler(Events.COMPLETED, self._raise)  # now, and so behind all other savers

    def _collect(self, engine: Engine) -> None:
        items = list(zip(engine.state.batch, engine.state.output, strict=True))
        self._rows += [_row({**batch, **output}, self.instances) for batch, output in items]
        done = [(batch, output) for batch, output in items if batch.get(STATUS, DONE) == DONE]
        engine.state.batch = [batch for batch, _ in done]
        engine.state.output = [output for _, output in done]

    def _write(self, engine: Engine) -> None:
        gathered = idist.all_gather(self._rows) if idist.get_world_size() > 1 else [self._rows]
        rows = [row for part in gathered for row in part]
        # a sampler repeats a bag where the number of bags is no multiple of that of ranks
        self._rows = list({row["case_id"] or i: row for i, row in enumerate(rows)}.values())
        lines = [line for row in self._rows for line in row.pop(LINES, [])]
        if idist.get_rank() == 0:
            _write_csv(self.output_dir / "predictions.csv", self._rows)
            _write_csv(self.output_dir / "instances.csv", lines)

    def _raise(self, engine: Engine) -> None:
        failed = [f"{row['case_id']!r} is {row['status']}" for row in self._rows if row["status"] != DONE]
        if failed:
            count = f"{len(failed)} of {len(self._rows)}"
            raise RuntimeError("\n  ".join([f"every bag must get an answer, got none for {count}:", *failed]))


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=max(map(list, rows), key=len))
            writer.writeheader()
            writer.writerows(rows)


def _row(item: Mapping[str, Any], instances: bool) -> dict[str, Any]:
    status = str(item.get(STATUS, DONE))
    row = {"case_id": str(item.get(BagKeys.CASE_ID, "")), "use": RESEARCH_USE, "status": status}
    if status != DONE:
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
    real = torch.as_tensor(item[BagKeys.MASK]).cpu() if BagKeys.MASK in item else torch.ones(len(attention)).bool()
    for i in real.nonzero()[:, 0].tolist():
        rows = attention[i].tolist()
        each = {f"attention_{a}": value for a, value in enumerate(rows)} if len(rows) > 1 else {}
        yield {"case_id": case_id, "instance": i, "attention": sum(rows) / len(rows), **each, "use": RESEARCH_USE}
