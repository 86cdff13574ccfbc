"""Tests of GradientClipHandler in trainers: norm, mixed precision, accumulated gradients."""

import math

import pytest
import torch
from ignite.engine import Events
from monai.engines import IterationEvents
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.handlers import GradientClipHandler
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import F, bag_batches, gradients, make_trainer
from tests.helpers import fill


def trained_network(*handlers, batches=None, scaler=None, callback=None, **options):
    """Return a network after one epoch; ``callback`` is added to the trainer as bundles do it."""
    network = fill(ABMIL(F, 2, hidden_size=8))
    trainer = make_trainer(network, batches or bag_batches(), *(handler(network) for handler in handlers), **options)
    if scaler is not None:
        trainer.amp = True
        trainer.add_event_handler(Events.STARTED, lambda _: setattr(trainer, "scaler", scaler))  # `run` makes another
    if callback is not None:
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _: callback(network))
    trainer.run()
    return network


def clip(max_norm):
    return lambda network: GradientClipHandler(network, max_norm)


def total_norm(network):
    return torch.cat([g.flatten() for g in gradients(network).values()]).norm().item()


def test_gradient_clip_limits_the_norm_of_all_parameters_together():
    free = total_norm(trained_network(clip(None)))
    assert free > 0.05
    assert total_norm(trained_network(clip(0.05))) == pytest.approx(0.05, rel=1e-4)


# MONAI makes a scaler for CUDA and asks for autocast on CUDA, so on a CPU these tests are of the scaler alone
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*CUDA is not available"),
    pytest.mark.filterwarnings("ignore:.*GradScaler.*is deprecated"),
]


@pytest.mark.parametrize("max_norm", [0.05, 1e6])
def test_gradient_clip_equals_clip_grad_norm_after_each_backward_pass(max_norm):
    by_hand = trained_network(callback=lambda network: nn.utils.clip_grad_norm_(network.parameters(), max_norm))
    assert_close(trained_network(clip(max_norm)).state_dict(), by_hand.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("max_norm", [None, math.inf])
def test_gradient_clip_attaches_nothing_without_a_limit(max_norm):
    network = nn.Linear(F, 2)
    trainer = make_trainer(network, bag_batches())
    GradientClipHandler(network, max_norm).attach(trainer)
    assert not trainer._event_handlers[IterationEvents.BACKWARD_COMPLETED]


@pytest.mark.parametrize("steps", [1, 3])
def test_gradient_clip_unscales_first(steps):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled = trained_network(clip(0.05), scaler=scaler, accumulation_steps=steps)
    assert total_norm(scaled) == pytest.approx(0.05, rel=1e-4)
    assert_close(scaled.state_dict(), trained_network(clip(0.05), accumulation_steps=steps).state_dict())


def test_gradient_clip_leaves_the_scaler_to_skip_an_overflow():
    batches = bag_batches()
    for batch in batches:
        batch["image"][0, 0] = math.inf
    network = trained_network(clip(1.0), batches=batches, scaler=torch.amp.GradScaler("cpu"))
    assert_close(network.state_dict(), fill(ABMIL(F, 2, hidden_size=8)).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("epoch_length", [4, 3])
def test_gradient_clip_clips_accumulated_gradients_once_a_step(epoch_length):
    """Four batches by three: the last batch of an epoch is a separate step."""
    norms = []
    trained_network(
        clip(0.05),
        accumulation_steps=3,
        epoch_length=epoch_length,
        max_epochs=2,
        callback=lambda network: norms.append(total_norm(network)),
    )
    clipped = [norm == pytest.approx(0.05, rel=1e-4) for norm in norms]
    assert clipped == [False, False, True, True][:epoch_length] * 2


@pytest.mark.parametrize("max_norm", [0, -1.0, math.nan, "1"])
def test_gradient_clip_refuses_a_norm_that_is_not_positive(max_norm):
    with pytest.raises(ValueError, match="`max_norm` must be positive and finite, got"):
        GradientClipHandler(nn.Linear(1, 1), max_norm)
