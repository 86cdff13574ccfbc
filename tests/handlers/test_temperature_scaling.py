"""Tests of TemperatureScalingHandler on a validation set."""

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from monai_mil_ext.handlers import TemperatureScalingHandler
from monai_mil_ext.metrics import TemperatureScaling


def evaluate(logits, labels, best=True, to_pred=lambda z: z.softmax(0), cases=None):
    items = list(zip(logits, labels, cases or map(str, range(len(labels))), strict=True))

    def step(engine, item):
        engine.state.batch = [{"label": item[1], "case_id": item[2]}]
        return [{"pred": to_pred(item[0])}]

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "best_metric_epoch", 1 if best else 0))
    handler = TemperatureScalingHandler()
    handler.attach(engine)
    engine.run(items)
    return handler.calibration


LOGITS = torch.tensor([[4.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 2.0], [2.0, 0.0]])
LABELS = [0, 1, 1, 1, 0]


def test_temperature_scaling_handler_fits_probabilities_like_logits():
    result = evaluate(LOGITS, LABELS)
    expected = TemperatureScaling().fit(LOGITS, torch.tensor(LABELS)).temperature
    assert result["temperature"] == pytest.approx(expected, rel=1e-5)
    assert expected > 1  # one of five confident predictions is wrong
    p = LOGITS.double().softmax(1).numpy()
    assert result["before"]["brier_score"] == pytest.approx(np.mean((p[:, 1] - LABELS) ** 2))
    assert result["after"]["brier_score"] < result["before"]["brier_score"]


def test_temperature_scaling_handler_writes_one_if_all_bags_are_right():
    assert evaluate(LOGITS, LOGITS.argmax(1).tolist())["temperature"] == 1.0


def test_temperature_scaling_handler_writes_for_the_best_epoch_only():
    assert evaluate(LOGITS, LABELS, best=False) == {}


def test_temperature_scaling_handler_counts_a_bag_of_two_ranks_once(monkeypatch):
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(idist, "all_gather", lambda rows: [rows, rows[:1]])
    assert evaluate(LOGITS, LABELS)["num_bags"] == 5


def test_temperature_scaling_handler_keeps_bags_of_one_case_id():
    assert evaluate(LOGITS, LABELS, cases=list("aaabb"))["num_bags"] == 5


def test_temperature_scaling_handler_of_one_probability_equals_that_of_two():
    two = evaluate(LOGITS, LABELS)
    one = evaluate(LOGITS, LABELS, to_pred=lambda z: z.softmax(0)[1:])
    assert one["temperature"] == pytest.approx(two["temperature"], rel=1e-4)
    assert one["before"] == pytest.approx(two["before"], rel=1e-4)


def test_temperature_scaling_handler_refuses_logits_and_other_labels():
    with pytest.raises(ValueError, match=r"`pred` must be probabilities in \[0, 1\], got 4"):
        evaluate(LOGITS, LABELS, to_pred=lambda z: z)
    with pytest.raises(ValueError, match=r"`pred` must be probabilities that sum to 1 over the classes"):
        evaluate(LOGITS, LABELS, to_pred=lambda z: z.sigmoid())
    with pytest.raises(ValueError, match=r"`label` must be 1 classes in \[0, 2\), got \[2\]"):
        evaluate(LOGITS, [2] * 5)
