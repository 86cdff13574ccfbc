"""Training of one network of a study on the training part of a fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from ignite.engine import Events
from ignite.handlers import EarlyStopping
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.utils import set_determinism
from torch import nn

from monai_mil_ext.apps.study.methods import StudyMethod, build_study_network
from monai_mil_ext.apps.study.outputs import Items, TaskOutputs
from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data import FeatureStatistics
from monai_mil_ext.networks.nets import BagNet, BagOutputWrapper, StandardizedNet
from monai_mil_ext.utils import quiet_loggers

from .fold_bags import FoldBags, has_positions
from .loss_terms import missing_terms, position_note, term_handlers
from .training_history import BestEpoch, Report
from .training_settings import TrainingSettings, apply_settings

__all__ = ["TrainedFold", "train_bag_network"]


@dataclass(frozen=True)
class TrainedFold:
    """Network of one fold.

    Attributes:
        network: trained network, which standardizes instances by the training part, and gives values in their unit.
        weights_note: sentence on what the loss weights, or an empty string.
        notes: sentences on what the loss lacks, and on what its terms take.
        history: values of each epoch.
        epoch: epoch of its weights.
        loss: its validation loss; NaN without a validation part.
        stability: for each case of the validation part, the mean over epochs of the Jensen-Shannon divergence between
            its attention and that of the epoch before (:py:func:`monai_mil_ext.metrics.attention_divergence`, in nats);
            empty without attention or with fewer than two validations.
    """

    network: StandardizedNet
    weights_note: str
    notes: list[str]
    history: list[dict[str, float]]
    epoch: int
    loss: float
    stability: dict[str, float] = field(default_factory=dict)


def train_bag_network(
    method: StudyMethod,
    settings: Mapping[str, Any],
    train_items: Items,
    val_items: Items,
    task: Task,
    training: TrainingSettings,
    report: Report | None = None,
) -> TrainedFold:
    """Train a network with MONAI's engines and keep the epoch with the lowest validation loss, of ties the last.

    The loss weights the classes if the largest has more than three times the cases of the rarest. Normal Guidance takes
    the positions of instances in mm where all files have them, otherwise their order. Instances are standardized by the
    training part. Its features are kept in memory if they fit in a quarter of what is free.

    Args:
        method: network and terms of its loss.
        settings: settings that differ from those of the method and the study, see :py:func:`apply_settings`.
        train_items: items of the training part.
        val_items: items of the validation part; without any, the last epoch is kept.
        task: task of the study.
        training: settings of the study.
        report: function that is called with each epoch and its validation loss; it may raise to end the training.

    Raises:
        ValueError: when a bag can't be read, or the validation loss is not finite in any epoch.
    """
    method, training = apply_settings(method, training, settings)
    set_determinism(training.seed)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    outputs = TaskOutputs.fit(task, train_items)
    network = build_study_network(method, train_items[0], task).to(device)
    net = network.net
    statistics = FeatureStatistics.for_network(net, train_items, network.in_features)
    bags = FoldBags(statistics, outputs, training, device, bool(method.guidance) and has_positions(train_items))
    keeper = BestEpoch(net, outputs, report)
    if any(weight.requires_grad for weight in net.parameters()):
        trainer = _trainer(net, method, bags, train_items)
        loggers = [trainer.logger]
        keeper.attach(trainer)
        if val_items:
            evaluator = _evaluator(net, bags, val_items)
            keeper.attach_validation(evaluator)
            stop = EarlyStopping(training.patience, lambda _: -keeper.last_loss, trainer)
            loggers += [evaluator.logger, stop.logger]
            evaluator.add_event_handler(Events.COMPLETED, stop)
            ValidationHandler(1, evaluator).attach(trainer)
        with quiet_loggers(*loggers):  # MONAI's engines tell each epoch, and a study has thousands
            trainer.run()
    keeper.restore()
    network.set_statistics(statistics.mean, statistics.scale, outputs.center, outputs.scale)
    notes = [*missing_terms(method, task), *position_note(method, bags)]
    return TrainedFold(
        network.cpu().eval(), outputs.note, notes, keeper.history, keeper.epoch, keeper.loss, keeper.stability()
    )


def _trainer(net: nn.Module, method: StudyMethod, bags: FoldBags, items: Items) -> SupervisedTrainer:
    settings = bags.training
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    return SupervisedTrainer(
        device=bags.device,
        max_epochs=settings.epochs,
        train_data_loader=bags.loader(items, train=True),
        network=net,
        optimizer=optimizer,
        loss_function=bags.outputs.loss().to(bags.device),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        train_handlers=[LrScheduleHandler(schedule, print_lr=False), *term_handlers(net, method, bags)],
        amp=bags.device.type == "cuda",
        decollate=False,
    )


def _evaluator(net: BagNet, bags: FoldBags, items: Items) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=bags.device,
        val_data_loader=bags.loader(items, train=False),
        network=BagOutputWrapper(net),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        amp=bags.device.type == "cuda",
        decollate=False,
    )
