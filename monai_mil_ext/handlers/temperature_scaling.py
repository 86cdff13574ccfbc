"""Handler that fits temperature scaling on the validation data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine

from monai_mil_ext.handlers.savers.gather import RowHandler
from monai_mil_ext.metrics import TemperatureScaling, brier_score, expected_calibration_error
from monai_mil_ext.metrics.bag_classification import class_labels
from monai_mil_ext.utils import BagKeys, class_probabilities

__all__ = ["TemperatureScalingHandler"]

MIN_PROBABILITY = 1e-12  # smaller values are clamped before the logarithm


class TemperatureScalingHandler(RowHandler):
    """Handler that fits :py:class:`monai_mil_ext.metrics.TemperatureScaling` after each best validation so far.

    It uses decollated items: probabilities ``pred`` (C,) of exclusive classes, whose logarithms serve as logits (one
    value is the probability of the second of two classes), and ``label``. If all bags are classified correctly, the
    temperature can't be determined and is set to 1. ``calibration`` has ``temperature``,
    ``num_bags``, and calibration error and Brier score of the validation data before and after scaling. In a
    distributed run the bags of all processes are gathered, without duplicates of the sampler.

    :py:class:`monai_mil_ext.handlers.ModelRecordSaver` writes it beside the weights of the best epoch.

    Raises:
        ValueError: during a run, if ``pred`` are not probabilities that sum to 1, such as logits, or ``label`` is not a
            class number.

    Example:
        >>> TemperatureScalingHandler().calibration
        {}
    """

    def __init__(self) -> None:
        super().__init__()
        self.calibration: dict[str, Any] = {}

    def _row(self, item: Mapping[str, Any]) -> dict[str, Any]:
        probability = class_probabilities(item["pred"]).tolist()
        label = class_labels(torch.as_tensor(item["label"]).reshape(-1).cpu(), 1, len(probability))
        return {"case_id": str(item.get(BagKeys.CASE_ID, "")), "label": int(label[0]), "probability": probability}

    def _content(self, row: Mapping[str, Any]) -> list[float]:
        return [row["label"], *row["probability"]]

    def _finish(self, engine: Engine, rows: list[dict[str, Any]]) -> None:
        best: Any = getattr(engine.state, "best_metric_epoch", engine.state.epoch)
        if rows and best == engine.state.epoch:
            self.calibration = _fit(rows)


def _fit(rows: list[dict[str, Any]]) -> dict[str, Any]:
    label = [row["label"] for row in rows]
    probability = torch.tensor([row["probability"] for row in rows], dtype=torch.float64)
    logits = probability.clamp_min(MIN_PROBABILITY).log()
    scaling = TemperatureScaling()
    if (logits.argmax(1) != torch.tensor(label)).any():
        scaling.fit(logits, torch.tensor(label))
    values = {"before": probability, "after": scaling(logits).softmax(1)}
    metrics = {
        name: {
            "calibration_error": expected_calibration_error(label, p.numpy()),
            "brier_score": brier_score(label, p.numpy()),
        }
        for name, p in values.items()
    }
    return {"temperature": scaling.temperature, "num_bags": len(rows), **metrics}
