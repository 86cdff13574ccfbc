"""Small training run with all kinds of randomness, to be run in a new process."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import (
    CheckpointLoader,
    CheckpointSaver,
    EarlyStopHandler,
    LrScheduleHandler,
    ParamSchedulerHandler,
    ValidationHandler,
)
from monai.transforms import Compose, Lambdad, RandGaussianNoised, RandScaleIntensityd
from monai.utils import set_determinism

from monai_mil_ext.handlers import AttentionPriorHandler, TrainingState, find_checkpoint
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, make_trainer

EPOCHS, STEPS = 4, 4


def jitter(x):
    """Draw from generators other than MONAI's."""
    return x * (1 + 0.1 * random.random()) + 0.1 * np.random.rand()  # noqa: NPY002, S311


def items(count):
    """Return bags (5, F), the same in every process."""
    generator = torch.Generator().manual_seed(5)
    return [{"image": torch.randn(5, F, generator=generator), "label": i % CLASSES} for i in range(count)]


def run(folder, num_workers=0, saver_last=True, die_at=None):
    """Train to the end and save the weights, or be killed at a step; resume from a checkpoint if there is one."""
    torch.set_num_threads(1)
    set_determinism(7)
    augment = [RandGaussianNoised("image", prob=0.7), Lambdad("image", jitter), RandScaleIntensityd("image", 0.5)]
    data = Dataset(items(2 * STEPS), Compose(augment))
    workers = {"num_workers": num_workers, "multiprocessing_context": "fork" if num_workers else None}
    loader = DataLoader(data, batch_size=2, shuffle=True, **workers)
    net = ABMIL(F, CLASSES, hidden_size=4, dropout=0.5)
    prior = AttentionPriorHandler(NormalGuidanceLoss(), weight=0.1)
    early = EarlyStopHandler(patience=EPOCHS, score_function=lambda engine: -engine.state.iteration)
    evaluator = SupervisedEvaluator("cpu", DataLoader(Dataset(items(3)), batch_size=1), net, val_handlers=[early])
    ramp = {"initial_value": 0.1, "step_constant": 2, "step_max_value": 13, "max_value": 2.0}
    weight = ParamSchedulerHandler(prior.set_weight, "linear", ramp)
    trainer = make_trainer(net, loader, prior, weight, max_epochs=EPOCHS)
    early.set_trainer(trainer)
    schedule = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.7)
    state = TrainingState(data, prior=prior, early_stop=early)
    parts = {"net": net, "optimizer": trainer.optimizer, "schedule": schedule, "trainer": trainer, "state": state}
    saver = CheckpointSaver(f"{folder}/checkpoints", parts, save_interval=1, n_saved=2)
    validation = ValidationHandler(1, evaluator)
    last = [validation, saver] if saver_last else [saver, validation]
    checkpoint = find_checkpoint(f"{folder}/checkpoints")
    loading = [CheckpointLoader(checkpoint, parts)] if checkpoint else []
    for handler in [LrScheduleHandler(schedule, print_lr=False), *last, *loading, state]:
        handler.attach(trainer)
    if die_at is not None:
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=die_at), kill)
    trainer.run()
    Path(folder).mkdir(exist_ok=True)
    final = {
        "net": net.state_dict(),
        "checkpoint": checkpoint or "",
        "early_stop": early._handler.counter,
        "weight": prior.weight,
    }
    torch.save(final, f"{folder}/final.pt")
