"""Tests that InstanceLossHandler gives the complete loss of CLAM in value and gradient."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.handlers import InstanceLossHandler
from monai_mil_ext.losses import CLAMInstanceLoss
from monai_mil_ext.networks.nets import CLAM
from tests.handlers.training import CLASSES, F, bag_batches, gradients, hook_count, in_float64, make_trainer
from tests.helpers import fill


def make():
    return fill(CLAM(F, CLASSES, hidden_size=4, attention_size=3, num_instances=2, dropout=0)).double()


def test_instance_loss_gradients_and_values_are_those_of_the_sum():
    (batch,) = batches = in_float64(bag_batches(1))
    net, same, seen = make(), make().train(), {}
    trainer = make_trainer(net, batches, InstanceLossHandler(CLAMInstanceLoss(subtyping=True)))
    trainer.run()
    same.instance_tap.register_forward_hook(lambda *args: seen.update(z=args[-1]))
    bag = cross_entropy(same(batch["image"], batch["mask"]), batch["label"])
    instance = CLAMInstanceLoss(subtyping=True)(seen["z"], batch["label"], batch["mask"].sum(1))
    (bag + 3 / 7 * instance).backward()
    assert_close(gradients(net), gradients(same), rtol=1e-12, atol=1e-12)
    assert_close(trainer.state.metrics["instance_loss"], instance.item(), rtol=1e-12, atol=1e-12)
    assert hook_count(net) == 0


def test_a_layer_with_another_output_is_refused():
    trainer = make_trainer(make(), in_float64(bag_batches(1)), InstanceLossHandler(layer="score_tap"))
    with pytest.raises(ValueError, match=r"`layer` must put out a tensor \(B, G, 2k, 2\), got .* from 'score_tap'"):
        trainer.run()


def test_a_missing_label_is_named():
    trainer = make_trainer(make(), in_float64(bag_batches(1)), InstanceLossHandler(label_key="grade"))
    with pytest.raises(ValueError, match="`label_key` must be one of"):
        trainer.run()


def test_weight_zero_hooks_nothing():
    net, handler = make(), InstanceLossHandler(weight=0)
    make_trainer(net, in_float64(bag_batches(1)), handler).run()
    assert torch.isfinite(next(net.parameters())).all()
    assert hook_count(net) == 0
