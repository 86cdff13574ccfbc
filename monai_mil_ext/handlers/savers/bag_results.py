"""Saver of an evaluation: a row for each bag, a row for each instance, and a report of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine

from monai_mil_ext.metrics import bag_report, instance_values
from monai_mil_ext.metrics.bag_classification import class_labels
from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    check_class_names,
    class_probabilities,
    drop_padding,
    head_mean,
    write_csv,
    write_json,
)

from .class_columns import class_columns
from .gather import RowHandler
from .model_columns import model_columns

__all__ = ["BagResultsSaver"]

LOCALIZATION = ("instance_auroc", "instance_ap", "pointing_game", "precision_at_recall_10", "positive_mass")
NO_INSTANCES = ("case_id", "attention", "use")  # header of a table without rows
INSTANCE_KEYS = (BagKeys.SLICE_INDEX, BagKeys.POSITION, BagKeys.INSTANCE_LABEL)


class BagResultsSaver(RowHandler):
    """Saver that collects every bag of an evaluation and writes ``bags.csv``, ``instances.csv`` and ``report.json``.

    It reads decollated items of MONAI's evaluators: ``pred`` (C,), probabilities of exclusive classes (one value is the
    probability of the second of two classes), ``label``, and, if present, ``attention`` (N,) or (N, A) whose mean over
    A is the score of an instance, ``mask`` (N,), ``instance_label`` (N,), ``position`` (N,), ``slice_index`` (N,),
    ``case_id`` and ``patient``. Files hold the case id and the patient as the cohort names them, and nothing else about
    a patient. Column ``probability_<c>`` is that of class c. Without instance labels there are no values of
    localization. In a distributed run the rows of all ranks are gathered, in the order of the dataset if its sampler
    does not shuffle, and a bag that the sampler repeated counts once; the first rank writes.

    Args:
        output_dir: folder of the three files, which are replaced atomically; ``report.json`` is written last.
        num_samples: number of bootstrap samples for the confidence intervals.
        name: attribute of ``engine.state`` that gets the report.
        kappa_weights: see :py:func:`monai_mil_ext.metrics.bag_values`.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`, for
            all files, or a function that returns it after the run; with a ``source_check``, each row has it.
        class_names: names of the C classes, for all files.

    Raises:
        ValueError: during a run, if ``pred`` are not probabilities that sum to 1, such as logits, ``label`` is not a
            class number, or ``class_names`` and classes differ in number.
    """

    def __init__(
        self,
        output_dir: str,
        num_samples: int = 1000,
        name: str = "bag_report",
        kappa_weights: str | None = None,
        model: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)
        self.num_samples = num_samples
        self.name = name
        self.kappa_weights = kappa_weights
        self.model = model
        self.class_names = None if class_names is None else tuple(map(str, class_names))

    def _row(self, item: Mapping[str, Any]) -> dict[str, Any]:
        row = _row(item)
        check_class_names(self.class_names, len(row["probability"]))
        return row

    def _content(self, row: Mapping[str, Any]) -> list[float]:
        return [float(row["label"]), *row["probability"], *row.get("attention", ())]

    def _finish(self, engine: Engine, rows: list[dict[str, Any]]) -> None:
        stated = self.model() if callable(self.model) else self.model
        model = {} if stated is None else {"model": dict(stated)}
        report = {
            "use": RESEARCH_USE,
            **model,
            **bag_report(rows, self.num_samples, self.kappa_weights, self.class_names),
        }
        setattr(engine.state, self.name, report)
        if idist.get_rank() == 0:
            check = {key: value for key, value in (stated or {}).items() if key == BagKeys.SOURCE_CHECK}
            about = {**check, **model_columns(stated)}
            bags = [{**_bag_line(row, self.class_names), **about} for row in rows]
            instances = [{**line, **about} for row in rows for line in _instance_lines(row)]
            text = _text(report)
            write_csv(self.output_dir / "instances.csv", instances, None if instances else NO_INSTANCES)
            write_csv(self.output_dir / "bags.csv", bags)
            write_json(self.output_dir / "report.json", report)
            engine.logger.info(text)


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    case = str(item.get(BagKeys.CASE_ID, ""))
    probability = class_probabilities(item["pred"]).tolist()
    row: dict[str, Any] = {
        "case_id": case,
        "patient": str(item.get(BagKeys.PATIENT, case)),
        "label": int(class_labels(torch.as_tensor(item["label"]).reshape(-1).cpu(), 1, len(probability))[0]),
        "probability": probability,
    }
    for key in INSTANCE_KEYS:
        if key in item:
            row[str(key)] = drop_padding(item[key], item).tolist()
    if BagKeys.ATTENTION not in item:
        mask = item.get(BagKeys.MASK)
        return {**row, "num_instances": "" if mask is None else int(torch.as_tensor(mask).sum())}
    attention = head_mean(drop_padding(item[BagKeys.ATTENTION], item).detach().cpu().float())
    labels = row.get(str(BagKeys.INSTANCE_LABEL))
    values = instance_values(attention, None if labels is None else torch.tensor(labels))
    return {**row, "attention": attention.tolist(), "num_instances": len(attention), **values}


def _bag_line(row: Mapping[str, Any], class_names: Sequence[str] | None) -> dict[str, Any]:
    return {
        **{key: row[key] for key in ("case_id", "patient", "label")},
        **({} if class_names is None else {"label_class": class_names[row["label"]]}),
        **class_columns(row["probability"], class_names),
        "num_instances": row["num_instances"],
        **{key: row[key] for key in LOCALIZATION if key in row},
        "use": RESEARCH_USE,
    }


def _instance_lines(row: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    keys = [str(key) for key in INSTANCE_KEYS if str(key) in row]
    for i, score in enumerate(row.get("attention", ())):
        yield {"case_id": row["case_id"], **{key: row[key][i] for key in keys}, "attention": score, "use": RESEARCH_USE}


def _text(report: Mapping[str, Any]) -> str:
    """Return the report as text: notes, a line for each value and, for three or more classes, each class."""
    head = f"{report['num_bags']} bags of {report['num_patients']} patients, 95 % interval over {report['resampled']}"
    notes = [f"  note: {note}" for note in report["notes"]]
    lines = [
        f"  {name:<22} {_format_value(value, *report['interval_95'][name])}" for name, value in report["values"].items()
    ]
    classes = report.get("classes", [])
    return "\n".join([head, *notes, *lines, *(_class_lines(report) if len(classes) > 2 else []), f"  {RESEARCH_USE}"])


def _class_lines(report: Mapping[str, Any]) -> Iterable[str]:
    yield f"  {'class':<22} {'bags':>6} {'auroc':>6} {'recall':>6}  predicted as 0, 1, ..."
    for row, counts in zip(report["classes"], report["confusion_matrix"], strict=True):
        name = f"{row['class']} {row.get('name', '')}".strip()
        values = " ".join("     -" if math.isnan(row[key]) else f"{row[key]:6.3f}" for key in ("auroc", "recall"))
        yield f"  {name:<22} {row['num_bags']:>6} {values}  {' '.join(map(str, counts))}"


def _format_value(value: float, low: float, high: float) -> str:
    return "     -" if math.isnan(value) else f"{value:6.3f}  [{low:.3f}, {high:.3f}]"
