"""Tests of AttentionStabilityHandler: values over epochs, files, and resuming."""

import csv
import json
import math

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import ValidationHandler

from monai_mil_ext.handlers import AttentionStabilityHandler, TrainingState
from monai_mil_ext.metrics import attention_divergence
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.evaluation import bags, make_evaluator
from tests.handlers.training import F, bag_batches, make_trainer
from tests.helpers import fill

EPOCHS = [
    {"b": [0.5, 0.5], "a": [0.2, 0.3, 0.5]},
    {"a": [0.2, 0.3, 0.5], "b": [0.1, 0.9]},
    {"b": [0.9, 0.1], "a": [0.5, 0.3, 0.2]},
]


def run(handler, epoch, attention):
    """Run a validation whose attention has two equal heads and is padded to four instances."""

    def step(engine, _batch):
        engine.state.batch = [{"case_id": k, "mask": torch.arange(4) < len(a)} for k, a in attention.items()]
        padded = [torch.tensor([*a, *[0.0] * (4 - len(a))])[:, None] for a in attention.values()]
        return [{"attention": a.expand(4, 2)} for a in padded]

    engine = Engine(step)
    engine.state.metrics = {}
    handler.attach(engine)
    engine.state.epoch, engine.state.max_epochs = epoch - 1, epoch
    engine.run([0], max_epochs=epoch)
    return engine.state.metrics


def jsd(first, second):
    return attention_divergence(*(torch.tensor(a).view(1, -1, 1) for a in (first, second))).item()


def test_attention_stability_handler_equals_a_series_by_hand(tmp_path):
    handler = AttentionStabilityHandler(tmp_path)
    seen = [run(handler, epoch, attention) for epoch, attention in zip((1, 3, 10), EPOCHS, strict=True)]
    moved = [
        (jsd(EPOCHS[1]["a"], EPOCHS[0]["a"]), jsd(EPOCHS[1]["b"], EPOCHS[0]["b"])),
        (jsd(EPOCHS[2]["a"], EPOCHS[1]["a"]), jsd(EPOCHS[2]["b"], EPOCHS[1]["b"])),
    ]
    assert moved[0][0] == 0
    assert "attention_jsd" not in seen[0]
    assert [s["attention_jsd"] for s in seen[1:]] == pytest.approx([sum(m) / 2 for m in moved])
    entropy = [-sum(p * math.log(p) for p in a) / math.log(len(a)) for a in EPOCHS[1].values()]
    assert seen[1]["attention_uniformity"] == pytest.approx(sum(entropy) / 2)
    rows = list(csv.DictReader((tmp_path / "attention_stability.csv").open()))
    assert [(row["epoch"], row["case_id"]) for row in rows] == [(e, c) for e in ("1", "3", "10") for c in "ab"]
    assert [row["jsd"] for row in rows[:2]] == ["", ""]
    assert float(rows[5]["jsd"]) == pytest.approx(moved[1][1])
    summary = json.loads((tmp_path / "attention_stability.json").read_text())
    by_bag = [(moved[0][k] + moved[1][k]) / 2 for k in (0, 1)]
    assert summary["jsd"] == pytest.approx(sum(by_bag) / 2)
    assert summary["jsd_sd"] == pytest.approx(abs(by_bag[0] - by_bag[1]) / math.sqrt(2))
    assert summary["jsd_share"] == pytest.approx(summary["jsd"] / math.log(2))
    assert [epoch["epoch"] for epoch in summary["epochs"]] == [1, 3, 10]
    assert summary["epochs"][0]["jsd"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["attention_stability.csv", "attention_stability.json"]


def test_attention_stability_handler_resumes_with_the_same_files(tmp_path):
    through, stopped = (AttentionStabilityHandler(tmp_path / name) for name in ("through", "stopped"))
    for epoch, attention in enumerate(EPOCHS, 1):
        for handler in (through, stopped):
            run(handler, epoch, attention)
        if epoch < 3:
            torch.save(TrainingState(stability=stopped).state_dict(), tmp_path / "state.pt")
            stopped = AttentionStabilityHandler(tmp_path / "stopped")
            loaded = torch.load(tmp_path / "state.pt", weights_only=True)
            TrainingState(stability=stopped).load_state_dict(loaded)
    for name in ("attention_stability.csv", "attention_stability.json"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "through" / name).read_text()


def test_attention_stability_handler_in_validations_of_a_trainer():
    net = fill(ABMIL(F, 2, hidden_size=4))
    stability = AttentionStabilityHandler()
    evaluator = make_evaluator(bags(), stability, net=net, batch_size=2)
    make_trainer(net, bag_batches(1), ValidationHandler(1, evaluator), max_epochs=3).run()
    seen = stability.state_dict()
    assert seen["epochs"] == [1, 2, 3]
    assert list(seen["series"]) == [f"case_{i}" for i in range(5)]
    assert [len(a) for a in seen["attention"].values()] == [len(item["image"]) for item in bags()]
    assert evaluator.state.metrics["attention_jsd"] > 0


def test_attention_stability_handler_skips_a_validation_that_is_not_later():
    handler = AttentionStabilityHandler()
    run(handler, 2, EPOCHS[0])
    before = handler.state_dict()
    with pytest.warns(UserWarning, match="Epoch 1 is not later than 2: this validation is left out of the series"):
        assert run(handler, 1, EPOCHS[1]) == {}
    assert handler.state_dict()["epochs"] == before["epochs"] == [2]
    assert torch.equal(handler.state_dict()["attention"]["b"], before["attention"]["b"])


def test_attention_stability_handler_names_bad_items():
    handler = AttentionStabilityHandler()
    run(handler, 1, EPOCHS[0])
    with pytest.raises(ValueError, match="must be of the bags of the previous epoch, got b in one only"):
        run(handler, 2, {"a": EPOCHS[0]["a"]})
    nameless = [{key: value for key, value in item.items() if key != "case_id"} for item in bags()]
    with pytest.raises(ValueError, match="`case_id` must be in an item of a bag, got lesions, label"):
        make_evaluator(nameless, AttentionStabilityHandler()).run()
    with pytest.raises(ValueError, match="`case_id` must be the name of one bag, got 'case_0' twice"):
        make_evaluator([bags()[0]] * 2, AttentionStabilityHandler()).run()
