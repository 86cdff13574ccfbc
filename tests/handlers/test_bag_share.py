"""BagShareHandler: what a process's loss is multiplied by. Two processes: tests/bundles/test_multi_gpu.py."""

import ignite.distributed as idist
import pytest
import torch

from monai_mil_ext.handlers import AttentionPriorHandler, BagShareHandler
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, gradients, make_trainer
from tests.helpers import fill


def prior():
    return AttentionPriorHandler(NormalGuidanceLoss(), weight=0.7)


def trained(*handlers, runs=1):
    """Loss of the last step, and gradients, of three bags."""
    net = fill(ABMIL(F, CLASSES))
    trainer = make_trainer(net, bag_batches(1), *handlers, lr=0.0)
    for _ in range(runs):
        trainer.state.epoch = 0
        trainer.run()
    return trainer.state.output[0]["loss"], gradients(net)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("runs", [1, 2])
def test_the_whole_loss_is_weighed_once_wherever_the_handler_stands(monkeypatch, first, runs):
    loss, plain = trained(prior())
    monkeypatch.setattr(idist, "get_world_size", lambda: 4)
    monkeypatch.setattr(idist, "all_reduce", lambda x: 20 if isinstance(x, int) else x)  # 17 bags elsewhere
    handlers = [BagShareHandler(), prior()] if first else [prior(), BagShareHandler()]
    weighed, found = trained(*handlers, runs=runs)
    assert float(weighed) == pytest.approx(float(loss) * 3 * 4 / 20)
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient * 3 * 4 / 20)


def test_one_process_is_left_as_it_is():
    assert trained(BagShareHandler())[0] == trained()[0]
