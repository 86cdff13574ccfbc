"""AttentionPriorHandler in runs: hooks, exceptions, validation, schedules, logs, configs, errors."""

import warnings
from unittest.mock import MagicMock

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import (
    CheckpointSaver,
    ParamSchedulerHandler,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
)
from torch import nn
from torch.testing import assert_close

import monai_mil_ext  # noqa: F401  what a bundle imports
from monai_mil_ext.handlers import AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, SoftmaxInside, bag_batches, hook_count, make_trainer
from tests.helpers import fill


@pytest.fixture
def net():
    return fill(ABMIL(F, CLASSES))


def prior(**options):
    return AttentionPriorHandler(NormalGuidanceLoss(), **options)


class Failing:
    """Handler that raises in the middle of a run."""

    def __init__(self, event):
        self.event = event

    def attach(self, engine):
        engine.add_event_handler(self.event, self)

    def __call__(self, engine):
        if engine.state.iteration == 3 or self.event is Events.STARTED:
            raise KeyError("on purpose")


def test_attention_prior_has_hooks_during_a_run_only(net):
    seen = []
    trainer = make_trainer(net, bag_batches(), prior())
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: seen.append(hook_count(net)))
    for _ in range(2):
        trainer.run()
        assert hook_count(net) == 0
    assert min(seen) > 0
    assert len(set(seen)) == 1


def test_attention_prior_removes_hooks_after_termination(net):
    trainer = make_trainer(net, bag_batches(), prior())
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate)
    trainer.run()
    assert trainer.state.iteration == 2
    assert hook_count(net) == 0


@pytest.mark.parametrize("order", ["alone", "prior first", "saver first"])
@pytest.mark.parametrize("event", [Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED])
def test_attention_prior_removes_hooks_after_an_exception(net, tmp_path, order, event):
    saver = CheckpointSaver(str(tmp_path), {"net": net}, save_final=True)
    handlers = {"alone": [prior()], "prior first": [prior(), saver], "saver first": [saver, prior()]}[order]
    trainer = make_trainer(net, bag_batches(3), *handlers, Failing(event))
    with pytest.raises(KeyError, match="on purpose"):
        trainer.run()
    assert hook_count(net) == 0
    assert len(list(tmp_path.iterdir())) == (0 if order == "alone" else 1)


def test_attention_prior_continues_after_a_handled_exception(net):
    trainer = make_trainer(net, bag_batches(4), prior(), Failing(Events.ITERATION_COMPLETED), max_epochs=3)
    trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda _engine, _error: None)
    trainer.run()
    assert trainer.state.iteration > 4
    assert "attention_prior" in trainer.state.metrics
    assert hook_count(net) == 0


def test_attention_prior_in_an_interrupted_run(net, monkeypatch):
    monkeypatch.setattr(SupervisedTrainer, "interrupt_resume_enabled", True)
    trainer = make_trainer(net, bag_batches(), prior())
    trainer.add_event_handler(Events.ITERATION_STARTED(once=2), trainer.interrupt)
    terms = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: terms.append(e.state.output[0]["attention_prior"]))
    trainer.run()
    assert hook_count(net) > 0
    trainer.run()
    assert len(terms) == 4
    assert hook_count(net) == 0


def test_attention_prior_ignores_validation_of_the_same_network(net):
    asked = []

    def guidance(attention, mask):
        asked.append(len(attention))
        return NormalGuidanceLoss()(attention, mask)

    def train(*extra):
        network = fill(ABMIL(F, CLASSES))
        handlers = [make(network) for make in extra]
        make_trainer(network, bag_batches(), *handlers, AttentionPriorHandler(guidance), max_epochs=2).run()
        return network.state_dict()

    def validation(network):
        trainer = make_trainer(network, bag_batches(2, sizes=(3, 2)))
        evaluator = SupervisedEvaluator("cpu", trainer.data_loader, network, prepare_batch=trainer.prepare_batch)
        return ValidationHandler(1, evaluator, epoch_level=False)

    with_validation = train(validation)
    assert asked == [3] * 8
    assert_close(with_validation, train(), rtol=0, atol=0)


def test_attention_prior_weight_follows_a_schedule(net):
    handler = prior(weight=0.0)
    options = {"initial_value": 0.0, "step_constant": 2, "step_max_value": 4, "max_value": 1.0}
    schedule = ParamSchedulerHandler(handler.set_weight, "linear", options)
    trainer = make_trainer(net, bag_batches(5), handler, schedule)
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: seen.append((handler.weight, "attention_prior" in e.state.output[0])),
    )
    trainer.run()
    assert seen == [(0.0, False), (0.0, False), (0.5, False), (1.0, True), (1.0, True)]
    restored = prior()
    restored.load_state_dict(handler.state_dict())
    assert restored.weight == 1.0


def test_attention_prior_weight_can_become_zero(net):
    handler = prior()
    trainer = make_trainer(net, bag_batches(2), handler, max_epochs=2)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: handler.set_weight(0))
    names = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: names.append(sorted(e.state.metrics)))
    trainer.run()
    assert names == [["attention_prior"], []]


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_attention_prior_weight_must_be_finite_and_not_negative(bad):
    with pytest.raises(ValueError, match="`weight` must be finite and not negative, got"):
        prior(weight=bad)
    with pytest.raises(ValueError, match="`weight` must be finite and not negative, got"):
        prior().set_weight(bad)


def test_attention_prior_term_is_in_output_metrics_and_logs(net, capsys):
    writer = MagicMock()
    handlers = [
        prior(),
        StatsHandler(name="prior", output_transform=lambda x: x[0]["loss"], iteration_log=False),
        TensorBoardStatsHandler(summary_writer=writer, output_transform=lambda x: x[0]["loss"], iteration_log=False),
    ]
    trainer = make_trainer(net, bag_batches(), *handlers)
    terms = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: terms.append([item["attention_prior"] for item in e.state.output])
    )
    trainer.run()
    assert [len(set(items)) for items in terms] == [1] * 4  # one scalar for each of the three bags
    mean = sum(items[0] for items in terms) / 4
    assert_close(trainer.state.metrics["attention_prior"], mean)
    assert f"attention_prior: {mean:.4f}" in capsys.readouterr().out
    writer.add_scalar.assert_any_call("attention_prior", trainer.state.metrics["attention_prior"], 1)


def test_attention_prior_loss_is_a_plain_tensor(net):
    plain, meta = bag_batches(1), bag_batches(1)
    meta[0]["image"] = MetaTensor(meta[0]["image"])
    terms = [make_trainer(net, batches, prior(), lr=0, decollate=False) for batches in (plain, meta)]
    for trainer in terms:
        trainer.run()
    assert type(terms[1].state.output["attention_prior"]) is torch.Tensor
    assert not terms[1].state.output["attention_prior"].requires_grad
    assert terms[0].state.metrics == terms[1].state.metrics


CONFIG = """
imports: ["$import monai_mil_ext"]
weight: 0.25
handler:
  _target_: AttentionPriorHandler
  loss: {_target_: NormalGuidanceLoss, min_sd: 1.0}
  layer: attention
  weight: "@weight"
"""


def test_attention_prior_in_a_config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG)
    parser = ConfigParser()
    parser.read_config(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        handler = parser.get_parsed_content("handler")
    assert isinstance(handler, AttentionPriorHandler)
    assert (handler.layer, handler.weight, handler.loss.min_sd) == ("attention", 0.25, 1.0)


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
def test_attention_prior_names_invalid_layer_outputs(put_out, message):
    network = Scores(put_out)
    with pytest.raises(ValueError, match=message):
        make_trainer(network, bag_batches(), prior(layer="tap")).run()
    assert hook_count(network) == 0


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_attention_prior_names_an_unknown_layer_at_the_start(net, weight):
    with pytest.raises(ValueError, match="got 'score_tab'; did you mean 'score_tap'"):
        make_trainer(net, bag_batches(), prior(layer="score_tab", weight=weight)).run()
    assert hook_count(net) == 0


@pytest.mark.parametrize("name", ["loss", "attention_prior"])
def test_attention_prior_name_must_not_be_taken(net, name):
    with pytest.raises(ValueError, match=f"`name` must not be taken in the trainer's output .*, got '{name}'"):
        make_trainer(net, bag_batches(), prior(), prior(name=name)).run()


def test_attention_prior_loss_must_be_a_scalar(net):
    with pytest.raises(ValueError, match=r"`loss` must give a scalar, got shape \(3,\)"):
        make_trainer(net, bag_batches(), AttentionPriorHandler(NormalGuidanceLoss(reduction="none"))).run()


def test_attention_prior_names_an_invalid_kind():
    with pytest.raises(ValueError, match="`kind` must be one of 'scores', 'attention', got 'logits'"):
        prior(kind="logits")


def test_attention_prior_kind_attention_applies_no_softmax():
    batch = [{"image": torch.randn(2, 5, F), "label": torch.tensor([0, 1])}]
    network = SoftmaxInside()
    expected = NormalGuidanceLoss()(network.attend(batch[0]["image"]).unsqueeze(-1)).item()
    trainer = make_trainer(network, batch, prior(layer="attend", kind="attention"))
    trainer.run()
    assert_close(trainer.state.metrics["attention_prior"], expected)
