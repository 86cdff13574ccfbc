"""Tests of AuxiliaryLossHandler: hooks, exceptions, schedules of the weight, logs and errors."""

from unittest.mock import MagicMock

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.handlers import (
    CheckpointSaver,
    ParamSchedulerHandler,
    StatsHandler,
    TensorBoardStatsHandler,
)
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import monai_mil_ext  # noqa: F401  what a bundle imports
from monai_mil_ext.handlers.losses.auxiliary_loss import AuxiliaryLossHandler
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, gradients, hook_count, make_trainer
from tests.helpers import fill


@pytest.fixture
def net():
    return fill(ABMIL(F, CLASSES))


class SquaredScores(AuxiliaryLossHandler):
    """Handler whose term is the mean of the squared scores."""

    def __init__(self, layer="score_tap", weight=1.0, name="squared_scores", reduction="mean"):
        super().__init__(layer, weight, name, "mask")
        self.reduction = reduction

    def values(self, scores, mask):
        squares = scores.square().masked_fill(~mask[..., None], 0.0)
        return {self.name: squares.mean() if self.reduction == "mean" else squares.mean((1, 2))}


class Failing:
    """Handler that raises in the middle of a run."""

    def __init__(self, event):
        self.event = event

    def attach(self, engine):
        engine.add_event_handler(self.event, self)

    def __call__(self, engine):
        if engine.state.iteration == 3 or self.event is Events.STARTED:
            raise KeyError("on purpose")


def test_auxiliary_loss_adds_weight_times_term(net):
    batch, same = bag_batches(1)[0], fill(ABMIL(F, CLASSES)).train()
    trainer = make_trainer(net, [batch], SquaredScores(weight=0.3))
    torch.manual_seed(1)
    trainer.run()
    torch.manual_seed(1)
    out = same.forward_bag(batch["image"], batch["mask"])
    term = out.scores.square().masked_fill(~batch["mask"][..., None], 0.0).mean()
    (cross_entropy(out.logits, batch["label"]) + 0.3 * term).backward()
    assert_close(gradients(net), gradients(same))
    assert_close(trainer.state.metrics["squared_scores"], term.item())


def test_auxiliary_loss_has_hooks_during_a_run_only(net):
    seen = []
    trainer = make_trainer(net, bag_batches(), SquaredScores())
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: seen.append(hook_count(net)))
    for _ in range(2):
        trainer.run()
        assert hook_count(net) == 0
    assert min(seen) > 0
    assert len(set(seen)) == 1


def test_auxiliary_loss_removes_hooks_after_termination(net):
    trainer = make_trainer(net, bag_batches(), SquaredScores())
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate)
    trainer.run()
    assert trainer.state.iteration == 2
    assert hook_count(net) == 0


@pytest.mark.parametrize("order", ["alone", "handler first", "saver first"])
@pytest.mark.parametrize("event", [Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED])
def test_auxiliary_loss_removes_hooks_after_an_exception(net, tmp_path, order, event):
    saver = CheckpointSaver(str(tmp_path), {"net": net}, save_final=True)
    handlers = {
        "alone": [SquaredScores()],
        "handler first": [SquaredScores(), saver],
        "saver first": [saver, SquaredScores()],
    }[order]
    trainer = make_trainer(net, bag_batches(3), *handlers, Failing(event))
    with pytest.raises(KeyError, match="on purpose"):
        trainer.run()
    assert hook_count(net) == 0
    assert len(list(tmp_path.iterdir())) == (0 if order == "alone" else 1)


def test_auxiliary_loss_continues_after_a_handled_exception(net):
    trainer = make_trainer(net, bag_batches(4), SquaredScores(), Failing(Events.ITERATION_COMPLETED), max_epochs=3)
    trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda _engine, _error: None)
    trainer.run()
    assert trainer.state.iteration > 4
    assert "squared_scores" in trainer.state.metrics
    assert hook_count(net) == 0


def test_auxiliary_loss_in_an_interrupted_run(net, monkeypatch):
    monkeypatch.setattr(SupervisedTrainer, "interrupt_resume_enabled", True)
    trainer = make_trainer(net, bag_batches(), SquaredScores())
    trainer.add_event_handler(Events.ITERATION_STARTED(once=2), trainer.interrupt)
    terms = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: terms.append(e.state.output[0]["squared_scores"]))
    trainer.run()
    assert hook_count(net) > 0
    trainer.run()
    assert len(terms) == 4
    assert hook_count(net) == 0


def test_auxiliary_loss_weight_follows_a_schedule(net):
    handler = SquaredScores(weight=0.0)
    options = {"initial_value": 0.0, "step_constant": 2, "step_max_value": 4, "max_value": 1.0}
    schedule = ParamSchedulerHandler(handler.set_weight, "linear", options)
    trainer = make_trainer(net, bag_batches(5), handler, schedule)
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: seen.append((handler.weight, "squared_scores" in e.state.output[0])),
    )
    trainer.run()
    assert seen == [(0.0, False), (0.0, False), (0.5, False), (1.0, True), (1.0, True)]
    restored = SquaredScores()
    restored.load_state_dict(handler.state_dict())
    assert restored.weight == 1.0


def test_auxiliary_loss_weight_can_become_zero(net):
    handler = SquaredScores()
    trainer = make_trainer(net, bag_batches(2), handler, max_epochs=2)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: handler.set_weight(0))
    names = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: names.append(sorted(e.state.metrics)))
    trainer.run()
    assert names == [["squared_scores"], []]


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "1", None, True])
def test_auxiliary_loss_weight_must_be_finite_and_not_negative(bad):
    with pytest.raises(ValueError, match="`weight` must be finite and not negative, got"):
        SquaredScores(weight=bad)
    with pytest.raises(ValueError, match="`weight` must be finite and not negative, got"):
        SquaredScores().set_weight(bad)


def test_auxiliary_loss_term_is_in_output_metrics_and_logs(net, capsys):
    writer = MagicMock()
    handlers = [
        SquaredScores(),
        StatsHandler(name="terms", output_transform=lambda x: x[0]["loss"], iteration_log=False),
        TensorBoardStatsHandler(summary_writer=writer, output_transform=lambda x: x[0]["loss"], iteration_log=False),
    ]
    trainer = make_trainer(net, bag_batches(), *handlers)
    terms = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: terms.append([item["squared_scores"] for item in e.state.output])
    )
    trainer.run()
    assert [len(set(items)) for items in terms] == [1] * 4  # one scalar for each of the three bags
    mean = sum(items[0] for items in terms) / 4
    assert_close(trainer.state.metrics["squared_scores"], mean)
    assert f"squared_scores: {mean:.4f}" in capsys.readouterr().out
    writer.add_scalar.assert_any_call("squared_scores", trainer.state.metrics["squared_scores"], 1)


def test_auxiliary_loss_loss_is_a_plain_tensor(net):
    plain, meta = bag_batches(1), bag_batches(1)
    meta[0]["image"] = MetaTensor(meta[0]["image"])
    terms = [make_trainer(net, batches, SquaredScores(), lr=0, decollate=False) for batches in (plain, meta)]
    for trainer in terms:
        trainer.run()
    assert type(terms[1].state.output["squared_scores"]) is torch.Tensor
    assert not terms[1].state.output["squared_scores"].requires_grad
    assert terms[0].state.metrics == terms[1].state.metrics


class Scores(nn.Module):
    """Network whose submodule ``tap`` has any output, or is not called."""

    def __init__(self, put_out):
        super().__init__()
        self.tap = nn.Identity()
        self.classify = nn.Linear(F, CLASSES)
        self.put_out = put_out

    def forward(self, x, mask=None):
        x = x.nan_to_num()
        if self.put_out is not None:
            self.tap(self.put_out(x))
        return self.classify(x.mean(1))


@pytest.mark.parametrize(
    ("put_out", "message"),
    [
        (None, r"`layer` must fire in every training forward with gradients on, got nothing from 'tap'"),
        (lambda x: x.sum(), r"`layer` must put out a tensor \(B, N\) or \(B, N, S\), got \(\) from 'tap'"),
        (lambda x: x[None], r"got \(1, 3, 7, 6\) from 'tap'"),
        (lambda x: (x, None), r"got tuple from 'tap'"),
        (lambda x: x.mT, r"`mask` must have shape \(B, N\) = \(3, 6\), got \(3, 7\)"),
    ],
)
def test_auxiliary_loss_names_invalid_layer_outputs(put_out, message):
    network = Scores(put_out)
    with pytest.raises(ValueError, match=message):
        make_trainer(network, bag_batches(), SquaredScores(layer="tap")).run()
    assert hook_count(network) == 0


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_auxiliary_loss_names_an_unknown_layer_at_the_start(net, weight):
    with pytest.raises(ValueError, match="got 'score_tab'; did you mean 'score_tap'"):
        make_trainer(net, bag_batches(), SquaredScores(layer="score_tab", weight=weight)).run()
    assert hook_count(net) == 0


@pytest.mark.parametrize("name", ["loss", "squared_scores"])
def test_auxiliary_loss_name_must_not_be_taken(net, name):
    with pytest.raises(ValueError, match=f"`name` must not be taken in the trainer's output .*, got '{name}'"):
        make_trainer(net, bag_batches(), SquaredScores(), SquaredScores(name=name)).run()


def test_auxiliary_loss_loss_must_be_a_scalar(net):
    with pytest.raises(ValueError, match=r"`loss` must give a scalar, got shape \(3,\)"):
        make_trainer(net, bag_batches(), SquaredScores(reduction="none")).run()
