"""Tests that handlers name an engine that they cannot work with, or that has them already."""

import pytest
import torch
from ignite.engine import Engine, create_supervised_trainer
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_mil_ext.handlers import (
    AttentionAnchorHandler,
    AttentionPriorHandler,
    BagPredictionsSaver,
    BranchLossHandler,
    DDPLossWeightHandler,
    GradientClipHandler,
    ProximalL1Handler,
    TokenCountHandler,
)
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, make_trainer
from tests.helpers import fill

NET = ABMIL(F, CLASSES)
HANDLERS = {
    "prior": lambda: AttentionPriorHandler(NormalGuidanceLoss()),
    "prior of weight 0": lambda: AttentionPriorHandler(NormalGuidanceLoss(), weight=0),
    "anchor": lambda: AttentionAnchorHandler(NSFKLLoss()),
    "branches": lambda: BranchLossHandler(layer="attend"),
    "clip": lambda: GradientClipHandler(NET, 1.0),
    "no clip": lambda: GradientClipHandler(NET, None),
    "l1": lambda: ProximalL1Handler(0.1),
    "tokens": lambda: TokenCountHandler("attend"),
    "ddp": DDPLossWeightHandler,
}
every_handler = pytest.mark.parametrize("make", HANDLERS.values(), ids=HANDLERS)


@every_handler
def test_handler_names_ignites_trainer(make):
    trainer = create_supervised_trainer(NET, torch.optim.SGD(NET.parameters(), lr=0.1), nn.CrossEntropyLoss())
    message = r"`engine` must be a monai.engines.SupervisedTrainer, got Engine; .* see docs/how-to/plain-loops.md"
    with pytest.raises(ValueError, match=message):
        make().attach(trainer)
    assert not any(trainer._event_handlers.values())


@every_handler
def test_handler_names_an_evaluator(make):
    """An evaluator has the events of a trainer, but would never add a term."""
    with pytest.raises(ValueError, match=r"must be a monai\.engines\.SupervisedTrainer, got SupervisedEvaluator"):
        SupervisedEvaluator("cpu", bag_batches(1), NET, val_handlers=[make()])


@every_handler
def test_handler_attaches_to_a_monai_trainer_once(make):
    handler = make()
    trainer = make_trainer(fill(ABMIL(F, CLASSES)), bag_batches(1), handler)
    if not isinstance(handler, DDPLossWeightHandler) and getattr(handler, "max_norm", 1.0) < float("inf"):
        with pytest.raises(ValueError, match=f"must be one that this {type(handler).__name__} is not attached to"):
            handler.attach(trainer)
    make().attach(trainer)  # another one may be attached


def test_saver_names_ignites_engine_and_attaches_once(tmp_path):
    with pytest.raises(ValueError, match=r"`engine` must be a monai\.engines\.SupervisedEvaluator, got Engine"):
        BagPredictionsSaver(str(tmp_path)).attach(Engine(lambda *_: None))
    saver = BagPredictionsSaver(str(tmp_path))
    evaluator = SupervisedEvaluator("cpu", bag_batches(1), NET, val_handlers=[saver])
    with pytest.raises(ValueError, match="must be one that this BagPredictionsSaver is not attached to"):
        saver.attach(evaluator)
