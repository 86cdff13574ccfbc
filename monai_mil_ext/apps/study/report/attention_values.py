"""Means of the attention's metrics and of the localization over cases."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_mil_ext.metrics.report import INSTANCE_VALUES

from .case_sample import CaseSample
from .intervals import as_estimate, difference_estimate
from .set_values import SET_COLUMNS

__all__ = ["attention_stability", "attention_summary"]

STABILITY = "stability"

SHARES = ("share", "ratio", "auroc", "ap", "mass", "fraction", "game", "recall_10")


def attention_summary(sample: CaseSample) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Summarize the further columns of the predictions: means over cases with intervals by patient.

    Args:
        sample: the cases.

    Returns:
        Metrics of the attention; and those of the localization (see
        :py:func:`monai_mil_ext.metrics.instance_values`) with ``difference`` (and its ``p``), that of
        ``instance_auroc`` and ``center_auroc`` in the same cases, and ``num_cases`` with labels of both kinds. None
        where there are none.
    """
    more = {name: column for name, column in sample.rows.more.items() if name not in SET_COLUMNS}
    columns = {name: column for name, column in more.items() if np.isfinite(column).any()}
    means = {name: sample.mean(column) for name, column in columns.items()}
    estimates = {
        name: as_estimate(samples, _num_patients(sample, columns[name]), _scale(name, columns[name]))
        for name, samples in means.items()
    }
    attention = {name: value for name, value in estimates.items() if name not in INSTANCE_VALUES}
    localization: dict[str, Any] = {name: value for name, value in estimates.items() if name in INSTANCE_VALUES}
    if "instance_auroc" not in localization:
        return attention or None, None
    model = columns["instance_auroc"]
    localization["num_cases"] = sample.count_cases(np.isfinite(model))
    if "center_auroc" in columns:
        difference = model - columns["center_auroc"]
        paired = difference_estimate(sample.mean(difference), _num_patients(sample, difference))
        localization["difference"] = {"value": paired.pop("difference"), **paired}
    return attention or None, localization


def attention_stability(sample: CaseSample) -> dict[str, Any]:
    """Summarize how much the attention on validation cases changed from epoch to epoch of the trainings.

    Args:
        sample: the validation cases, with the column ``stability``: the mean Jensen-Shannon divergence between the
            attention of consecutive epochs, in nats.

    Returns:
        ``stability``: mean over cases with an interval by patient; empty where it is not known.
    """
    column = sample.rows.more.get(STABILITY)
    if column is None or not np.isfinite(column).any():
        return {}
    return {STABILITY: as_estimate(sample.mean(column), _num_patients(sample, column), "error")}


def _num_patients(sample: CaseSample, column: Any) -> int:
    return sample.count_patients(np.isfinite(column))


def _scale(name: str, column: Any) -> str:
    """Return the scale of a metric: values that are shares by their name and values, or any numbers."""
    finite = column[np.isfinite(column)]
    is_share = name.endswith(SHARES) and finite.min() >= 0 and finite.max() <= 1
    return "share" if is_share else "free"
