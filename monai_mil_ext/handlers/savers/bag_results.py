"""Saver of an evaluation: a row for each bag, a row for each instance, and a report of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from monai_mil_ext.metrics import bag_report, instance_values
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, drop_padding, head_mean, write_csv, write_json

from .gather import gather_rows

__all__ = ["BagResultsSaver"]


class BagResultsSaver:
    """Saver that collects every bag of an evaluation and writes ``bags.csv``, ``instances.csv`` and ``report.json``.

    It reads decollated items of MONAI's evaluators: ``pred`` (C,) probabilities, ``attention`` (N,) or
    (N, A) whose mean over A is the score of an instance, ``label``, and, if present, ``mask`` (N,),
    ``instance_label`` (N,), ``position`` (N,), ``slice_index`` (N,), ``case_id`` and ``patient``. Files hold the case
    id and nothing else about a patient. In a distributed run the rows of all ranks are gathered, in the order of the
    dataset if its sampler does not shuffle, and a bag that the sampler repeated counts once; the first rank writes.

    Args:
        output_dir: folder of the three files, which are replaced atomically.
        num_samples: number of bootstrap samples for the confidence intervals.
        name: attribute of ``engine.state`` that gets the report.
        kappa_weights: see :py:func:`monai_mil_ext.metrics.bag_values`.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`, for
            the report; with a ``source_check``, each row of ``bags.csv`` has it.
    """

    def __init__(
        self,
        output_dir: str,
        num_samples: int = 1000,
        name: str = "bag_report",
        kappa_weights: str | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.num_samples = num_samples
        self.name = name
        self.kappa_weights = kappa_weights
        self.model = None if model is None else dict(model)
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect after every iteration of ``engine`` and write when it has finished."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            self._rows.append(_row({**batch, **output}))

    def _finish(self, engine: Engine) -> None:
        rows = gather_rows(self._rows, lambda row: str(row["case_id"]))
        model = {} if self.model is None else {"model": self.model}
        report = {"use": RESEARCH_USE, **model, **bag_report(rows, self.num_samples, self.kappa_weights)}
        setattr(engine.state, self.name, report)
        if idist.get_rank() == 0:
            write_json(self.output_dir / "report.json", report)
            check = {key: value for key, value in (self.model or {}).items() if key == BagKeys.SOURCE_CHECK}
            write_csv(self.output_dir / "bags.csv", ({**_bag_line(row), **check} for row in rows))
            write_csv(self.output_dir / "instances.csv", (line for row in rows for line in _instance_lines(row)))
            engine.logger.info(_text(report))


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    attention = head_mean(drop_padding(item[BagKeys.ATTENTION], item).detach().cpu().float())
    row: dict[str, Any] = {
        "case_id": str(item.get(BagKeys.CASE_ID, "")),
        "patient": str(item.get(BagKeys.PATIENT, item.get(BagKeys.CASE_ID, ""))),
        "label": int(item["label"]),
        "probability": torch.as_tensor(item["pred"]).detach().float().cpu().tolist(),
        "attention": attention.tolist(),
    }
    for key in (BagKeys.SLICE_INDEX, BagKeys.POSITION, BagKeys.INSTANCE_LABEL):
        if key in item:
            row[str(key)] = drop_padding(item[key], item).tolist()
    labels = row.get(str(BagKeys.INSTANCE_LABEL))
    return {**row, **instance_values(attention, None if labels is None else torch.tensor(labels))}


def _bag_line(row: Mapping[str, Any]) -> dict[str, Any]:
    probability = {f"probability_{c}": p for c, p in enumerate(row["probability"])}
    localization = {
        key: row[key]
        for key in ("instance_auroc", "instance_ap", "pointing_game", "precision_at_recall_10", "positive_mass")
    }
    return {
        **{key: row[key] for key in ("case_id", "patient", "label")},
        **probability,
        "num_instances": len(row["attention"]),
        **localization,
        "use": RESEARCH_USE,
    }


def _instance_lines(row: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    keys = [str(k) for k in (BagKeys.SLICE_INDEX, BagKeys.POSITION, BagKeys.INSTANCE_LABEL) if str(k) in row]
    for i, score in enumerate(row["attention"]):
        yield {"case_id": row["case_id"], **{key: row[key][i] for key in keys}, "attention": score, "use": RESEARCH_USE}


def _text(report: Mapping[str, Any]) -> str:
    head = f"{report['num_bags']} bags of {report['num_patients']} patients, 95 % interval over {report['resampled']}"
    lines = [
        f"  {name:<22} {_format_value(value, *report['interval_95'][name])}" for name, value in report["values"].items()
    ]
    return "\n".join([head, *lines, f"  {RESEARCH_USE}"])


def _format_value(value: float, low: float, high: float) -> str:
    return "     -" if math.isnan(value) else f"{value:6.3f}  [{low:.3f}, {high:.3f}]"
