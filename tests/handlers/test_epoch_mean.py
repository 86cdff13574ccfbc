"""Tests of the mean of an output over each epoch."""

import pytest
import torch
from ignite.engine import Engine, Events

from monai_mil_ext.handlers import EpochMeanHandler
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, make_trainer
from tests.helpers import fill


@pytest.mark.parametrize("decollate", [False, True])
def test_the_mean_of_each_epoch_is_that_of_its_losses(decollate):
    handler, losses, means = EpochMeanHandler(), [], []
    trainer = make_trainer(fill(ABMIL(F, CLASSES)), bag_batches(3), handler, max_epochs=2, decollate=decollate)
    read = (lambda output: output[0]["loss"]) if decollate else (lambda output: output["loss"])
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(float(read(trainer.state.output))))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: means.append(trainer.state.metrics["train_loss"]))
    trainer.run()
    assert means == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])


def test_a_key_that_is_not_in_the_output_is_refused():
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(1.0)})
    EpochMeanHandler("dice").attach(engine)
    with pytest.raises(ValueError, match=r"`key` must be in the output \(loss\), got 'dice'"):
        engine.run([0])
