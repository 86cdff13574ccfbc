"""Saves what an evaluation found: a row a bag, a row an instance, and the report."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_mil_ext.metrics import bag_report, instance_values
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, atomic_path, write_json

__all__ = ["BagResultsSaver"]


class BagResultsSaver:
    """Collects every bag of an evaluation and writes ``bags.csv``, ``instances.csv`` and ``report.json``.

    It reads decollated items, as MONAI's evaluators give them: ``pred`` (C,) probabilities, ``attention`` (N,) or
    (N, A) whose mean over A is the score of an instance, ``label``, and, where they are, ``mask`` (N,),
    ``instance_label`` (N,), ``position`` (N,), ``slice_index`` (N,), ``case_id`` and ``patient``. Files carry the case
    id and nothing else of a patient. In a distributed run the rows of all ranks are gathered, in the order of the
    dataset where its sampler does not shuffle, and a bag that the sampler repeated counts once; the first rank writes.

    Args:
        output_dir: folder of the three files; each is replaced as a whole.
        num_samples: of the bootstrap that makes the intervals.
        name: key under which the report is put into ``engine.state``.
        kappa_weights: see :py:func:`monai_mil_ext.metrics.bag_values`.
    """

    def __init__(
        self, output_dir: str, num_samples: int = 1000, name: str = "bag_report", kappa_weights: str | None = None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.num_samples = num_samples
        self.name = name
        self.kappa_weights = kappa_weights
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect at every iteration of ``engine`` and write when it is through."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            self._rows.append(_row({**batch, **output}))

    def _finish(self, engine: Engine) -> None:
        rows = _together(idist.all_gather(self._rows)) if idist.get_world_size() > 1 else self._rows
        report = {"use": RESEARCH_USE, **bag_report(rows, self.num_samples, self.kappa_weights)}
        setattr(engine.state, self.name, report)
        if idist.get_rank() == 0:
            write_json(self.output_dir / "report.json", report)
            _write_csv(self.output_dir / "bags.csv", map(_bag_line, rows))
            _write_csv(self.output_dir / "instances.csv", (line for row in rows for line in _instance_lines(row)))
            engine.logger.info(_text(report))


def _together(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of all ranks, dealt out one by one as samplers do, without what another rank had before."""
    owners: dict[str, int] = {}
    rows = []
    for row_of_rank in zip_longest(*parts):
        for rank, row in enumerate(row_of_rank):
            if row is not None and (not row["case_id"] or owners.setdefault(row["case_id"], rank) == rank):
                rows.append(row)
    return rows


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    real = torch.as_tensor(item[BagKeys.MASK]) if BagKeys.MASK in item else slice(None)
    attention = torch.as_tensor(item[BagKeys.ATTENTION]).detach().float().cpu()
    attention = (attention.mean(-1) if attention.ndim == 2 else attention)[real]
    row: dict[str, Any] = {
        "case_id": str(item.get(BagKeys.CASE_ID, "")),
        "patient": str(item.get(BagKeys.PATIENT, item.get(BagKeys.CASE_ID, ""))),
        "label": int(item["label"]),
        "probability": torch.as_tensor(item["pred"]).detach().float().cpu().tolist(),
        "attention": attention.tolist(),
    }
    for key in (BagKeys.SLICE_INDEX, BagKeys.POSITION, BagKeys.INSTANCE_LABEL):
        if key in item:
            values: Tensor = torch.as_tensor(item[key]).cpu()[real]
            row[str(key)] = values.tolist()
    labels = row.get(str(BagKeys.INSTANCE_LABEL))
    return {**row, **instance_values(attention, None if labels is None else torch.tensor(labels))}


def _bag_line(row: Mapping[str, Any]) -> dict[str, Any]:
    probability = {f"probability_{c}": p for c, p in enumerate(row["probability"])}
    found = {
        key: row[key]
        for key in ("instance_auroc", "instance_ap", "pointing_game", "precision_at_recall_10", "positive_mass")
    }
    return {
        **{key: row[key] for key in ("case_id", "patient", "label")},
        **probability,
        "num_instances": len(row["attention"]),
        **found,
        "use": RESEARCH_USE,
    }


def _instance_lines(row: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    keys = [str(k) for k in (BagKeys.SLICE_INDEX, BagKeys.POSITION, BagKeys.INSTANCE_LABEL) if str(k) in row]
    for i, score in enumerate(row["attention"]):
        yield {"case_id": row["case_id"], **{key: row[key][i] for key in keys}, "attention": score, "use": RESEARCH_USE}


def _write_csv(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    rows: Sequence[Mapping[str, Any]] = list(lines)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _text(report: Mapping[str, Any]) -> str:
    head = f"{report['num_bags']} bags of {report['num_patients']} patients, 95 % interval over {report['resampled']}"
    lines = [f"  {name:<22} {_shown(value, *report['interval_95'][name])}" for name, value in report["values"].items()]
    return "\n".join([head, *lines, f"  {RESEARCH_USE}"])


def _shown(value: float, low: float, high: float) -> str:
    return "     -" if math.isnan(value) else f"{value:6.3f}  [{low:.3f}, {high:.3f}]"
