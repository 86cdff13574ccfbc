"""Tests of DDPLossWeightHandler in one process; for two, see tests/bundles/test_multi_gpu.py."""

import ignite.distributed as idist
import pytest
import torch

from monai_mil_ext.handlers import AttentionPriorHandler, DDPLossWeightHandler
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, gradients, make_trainer
from tests.helpers import fill


def prior():
    return AttentionPriorHandler(NormalGuidanceLoss(), weight=0.7)


def trained(*handlers, runs=1):
    """Return the loss of the last step and the gradients of three bags."""
    net = fill(ABMIL(F, CLASSES))
    trainer = make_trainer(net, bag_batches(1), *handlers, lr=0.0)
    for _ in range(runs):
        trainer.state.epoch = 0
        trainer.run()
    return trainer.state.output[0]["loss"], gradients(net)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("runs", [1, 2])
def test_ddp_loss_weight_applies_once_in_any_order_of_handlers(monkeypatch, first, runs):
    loss, plain = trained(prior())
    monkeypatch.setattr(idist, "get_world_size", lambda: 4)
    monkeypatch.setattr(idist, "all_reduce", lambda x: 20 if isinstance(x, int) else x)  # 17 bags elsewhere
    handlers = [DDPLossWeightHandler(), prior()] if first else [prior(), DDPLossWeightHandler()]
    weighted, weighted_gradients = trained(*handlers, runs=runs)
    assert float(weighted) == pytest.approx(float(loss) * 3 * 4 / 20)
    for name, gradient in plain.items():
        torch.testing.assert_close(weighted_gradients[name], gradient * 3 * 4 / 20)


def test_ddp_loss_weight_does_nothing_in_one_process():
    assert trained(DDPLossWeightHandler())[0] == trained()[0]
