"""Tests of what all handlers with a teacher share; their averages are tested with each of them."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionAnchorHandler, MaskedHardInstanceHandler
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, make_trainer
from tests.helpers import fill

HANDLERS = {
    "anchor": lambda **options: AttentionAnchorHandler(NSFKLLoss(), **options),
    "teacher": MaskedHardInstanceHandler,
}
every_handler = pytest.mark.parametrize("role", HANDLERS)


def run(handler, net, **options):
    torch.manual_seed(0)
    make_trainer(net, bag_batches(4), handler, lr=0.5, **options).run()


@every_handler
def test_teacher_is_the_average_after_each_step(role):
    handler, net, weights = HANDLERS[role](momentum=0.5), fill(ABMIL(F, CLASSES)), []
    start = net.classify.weight.detach().clone()
    update = handler._update_teacher
    handler._update_teacher = lambda *args: (weights.append(net.classify.weight.detach().clone()), update(*args))
    run(handler, net, accumulation_steps=2)
    average = start
    for weight in weights:
        average = torch.lerp(average, weight, 0.5)
    assert len(weights) == handler.steps == 2
    assert_close(handler.state_dict()[role]["classify.weight"], average, rtol=0, atol=0)


@every_handler
def test_state_of_a_teacher_that_does_not_exist_yet_is_kept(role):
    handler, other = HANDLERS[role](momentum=1.0), HANDLERS[role](momentum=1.0)
    run(handler, fill(ABMIL(F, CLASSES)))
    other.load_state_dict(handler.state_dict())
    assert_close(other.state_dict(), handler.state_dict(), rtol=0, atol=0)
    run(other, ABMIL(F, CLASSES))
    assert_close(other.state_dict()[role], handler.state_dict()[role], rtol=0, atol=0)


@every_handler
def test_another_network_is_refused(role):
    handler = HANDLERS[role]()
    run(handler, fill(ABMIL(F, CLASSES)))
    with pytest.raises(ValueError, match=f"`engine` must train the network of the {role}, got another ABMIL"):
        run(handler, fill(ABMIL(F, CLASSES)))


@every_handler
def test_momentum_must_be_a_fraction(role):
    with pytest.raises(ValueError, match="`momentum` must be"):
        HANDLERS[role](momentum=1.5)


@every_handler
def test_a_layer_that_is_replaced_between_runs_is_followed(role):
    handler, net = HANDLERS[role](momentum=0.0), fill(ABMIL(F, CLASSES))
    run(handler, net)
    net.classify = nn.Linear(F, CLASSES)
    run(handler, net)
    assert torch.equal(handler.state_dict()[role]["classify.weight"], net.classify.weight)
