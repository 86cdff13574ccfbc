"""Facts of a study that its report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.utils.exceptions import hide_absolute_paths

__all__ = ["CHANCE", "METRICS", "OPERATING", "ReportFacts", "clean"]

# names of metrics as a paper writes them
METRICS = {
    "auroc": "AUROC",
    "auprc": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "kappa": "quadratic kappa",
    "brier": "Brier score",
    "ece": "calibration error",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "spearman": "Spearman's \u03c1",
    "c_index": "C-index",
    "integrated_brier": "integrated Brier score",
}

OPERATING = ("sensitivity", "specificity", "ppv", "npv", "balanced_accuracy", "accuracy", "macro_f1")
CHANCE = {"auroc": 0.5, "c_index": 0.5, "kappa": 0.0, "r2": 0.0}  # value of a guess


@dataclass(frozen=True)
class ReportFacts:
    """Facts of a study that its report shows; all of them are plain values, and all but the first four may be empty.

    Args:
        title: heading of the report.
        task: task of the study.
        cohort: ``num_cases``, ``num_patients`` and, where known, ``num_sites``, ``labels`` (``{name: count}``, of the
            positive cases with several labels; ``{"event": n, "censored": m}`` with times; ``{"mean", "sd", "min",
            "max"}`` of a regression), ``sites`` (``{site: {name: count}}``), ``left_out`` (rows of ``case_id`` and
            ``reason``), ``encoder`` (words), ``instances`` (``"slices"``, ``"tiles"``), ``median_instances``,
            ``median_follow_up``.
        summaries: summary of each method by its name, in the order of the report; None if all its folds failed.
        folds: ``plan`` (words), ``by``, ``num_folds``, ``repeats``, ``val_fraction``, and ``counts``: for each fold
            ``{"fold", "repeat", "train", "val", "test"}``, and patients as ``"train_patients"``, ....
        methods: for each method ``settings`` (``{name: value}``), ``chosen`` (rows of fold and chosen settings),
            ``candidates`` (number of settings tried in each fold), ``failed`` (reasons by fold).
        comparisons: rows of ``a``, ``b``, ``metric``, ``difference``, ``low``, ``high``, ``p`` and ``p_holm``.
        clinical: ``summaries`` (``{method: {"clinical": summary, "both": summary}}``), ``effects`` (rows of ``name``,
            ``kind``, ``ratio``, ``low``, ``high``, ``p``, ``model``), ``columns``, ``missing`` (``{name: cases}``) and
            ``notes``.
        cases: rows of :py:func:`case_rows`.
        histories: for each method a list of the epochs of each fold: ``epoch``, ``train_loss``, ``val_loss``, ...
        provenance: result of :py:func:`collect_provenance`, with ``times`` (``{part: seconds}``) and ``num_samples``
            (of the bootstrap), where known.
        notes: sentences that the reader needs to know first.
        external: name of the second cohort of which the facts are, if it is not the one of the training.

    Example:
        >>> ReportFacts("Tumor", Task("regression"), {"num_cases": 9, "num_patients": 9}, {"ABMIL": None}).notes
        ()
    """

    title: str
    task: Task
    cohort: Mapping[str, Any]
    summaries: Mapping[str, Mapping[str, Any] | None]
    folds: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    comparisons: Sequence[Mapping[str, Any]] = ()
    clinical: Mapping[str, Any] = field(default_factory=dict)
    cases: Sequence[Mapping[str, Any]] = ()
    histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    external: str = ""

    @property
    def finished(self) -> dict[str, Mapping[str, Any]]:
        """Summaries of the methods that have one."""
        return {name: summary for name, summary in self.summaries.items() if summary}

    @property
    def label_counts(self) -> dict[str, Any]:
        """Numbers of cases by class or label; a case with several labels counts for each of them."""
        return dict(self.cohort.get("labels") or {})

    @property
    def main(self) -> str:
        """Name of the main metric."""
        default = "c_index" if self.task.has_times else {"regression": "r2", "ordinal": "kappa"}.get(self.task.kind)
        return next((str(s["main"]) for s in self.finished.values() if s.get("main")), default or "auroc")

    def metric(self, name: str) -> str:
        """Return the name of a metric as a paper writes it."""
        text = METRICS.get(name, name.replace("_", " "))
        if name in ("auroc", "auprc") and not self.task.is_binary and self.task.kind != "regression":
            return f"macro {text}"
        return text

    def value(self, method: str, metric: str = "") -> Mapping[str, Any] | None:
        """Return value and interval of a metric of a method, or None if it is unknown."""
        found = (self.summaries.get(method) or {}).get("values", {}).get(metric or self.main)
        return found if found and found.get("value") is not None else None

    @property
    def best(self) -> str:
        """Name of the method with the best main metric; the first one if none has a value, "" without methods."""
        known = {name: found["value"] for name in self.finished if (found := self.value(name))}
        return max(known, key=lambda name: known[name]) if known else next(iter(self.finished), "")

    def cleaned(self) -> ReportFacts:
        """Return the facts with plain Python values, None for what is not finite, and without absolute paths."""
        values = {f.name: clean(getattr(self, f.name)) for f in fields(self) if f.name != "task"}
        return ReportFacts(task=self.task, **values)


def clean(content: Any) -> Any:
    """Return plain Python values: None for what is not finite, and no absolute path in a text.

    Example:
        >>> clean({"a": np.float32("nan"), "b": np.arange(2), "c": "--table /data/cohort.csv"})
        {'a': None, 'b': [0, 1], 'c': '--table <path>'}
    """
    if isinstance(content, Mapping):
        return {str(clean(key)): clean(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [clean(value) for value in content]
    if isinstance(content, str):
        return hide_absolute_paths(ValueError(), str(content))
    if isinstance(content, (np.generic, np.ndarray)):
        return clean(content.tolist())
    return None if isinstance(content, float) and not np.isfinite(content) else content
