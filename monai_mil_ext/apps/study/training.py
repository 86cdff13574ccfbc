"""Training of one network of a study on the training part of a fold."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from ignite.handlers import EarlyStopping
from monai.data import CacheDataset, DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.transforms import CastToTyped, Compose, NormalizeIntensityd, SelectItemsd
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_mil_ext.data import BagBatchSampler, BagCollate, FeatureStatistics, bag_sizes, open_bag
from monai_mil_ext.handlers import (
    AttentionPriorHandler,
    BranchLossHandler,
    GradientClipHandler,
    InstanceLossHandler,
    MaskedHardInstanceHandler,
)
from monai_mil_ext.losses import (
    AttentionEntropyLoss,
    BranchDiversityLoss,
    CLAMInstanceLoss,
    KernelGuidanceLoss,
    NormalGuidanceLoss,
)
from monai_mil_ext.networks.nets import CORAL, BagNet, BagOutputWrapper, SourceNet, StandardizedNet
from monai_mil_ext.transforms import LoadBagd, PatientBagd, RandLoadBagd, RandSampleInstancesd
from monai_mil_ext.utils import BagKeys, check_positive, check_positive_number, quiet_loggers

from .methods import WEIGHTS, StudyMethod, build_study_network
from .outputs import Items, TaskOutputs
from .tasks import Task
from .training_history import BestEpoch, Report

__all__ = [
    "TrainedFold",
    "TrainingSettings",
    "apply_settings",
    "available_memory",
    "feature_bytes",
    "setting_names",
    "train_bag_network",
]

CASE, POSITION = str(BagKeys.CASE_ID), str(BagKeys.POSITION)
CACHED = 0.25  # fraction of the free memory that features may take
RISK_SET = 8  # least number of bags of a batch whose risks are compared with one another


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training.

    Args:
        epochs: largest number of epochs.
        patience: number of epochs without a lower validation loss after which the training ends.
        learning_rate: learning rate of AdamW at the start; it decreases to 0 as a cosine.
        weight_decay: weight decay of AdamW.
        batch_size: number of bags of a batch; ``None`` takes an eighth of the training part, up to 16. Of a Cox model,
            whose risk sets are those of a batch, it is at least 8.
        batch_instances: largest number of instances of a batch, including padding; of a Cox model, a batch may always
            have 8 bags.
        max_instances: largest number of instances of a bag in training; of larger bags, each epoch has another sample.
        gradient_clip: largest norm of the gradient.
        seed: seed of weights and batches.

    Raises:
        ValueError: when a number is not positive.
    """

    epochs: int = 30
    patience: int = 8
    learning_rate: float = 0.001
    weight_decay: float = 0.01
    batch_size: int | None = None
    batch_instances: int = 20_000
    max_instances: int = 8_192
    gradient_clip: float = math.inf
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(epochs=self.epochs, patience=self.patience, max_instances=self.max_instances)
        check_positive(
            batch_instances=self.batch_instances, batch_size=1 if self.batch_size is None else self.batch_size
        )
        check_positive_number(learning_rate=self.learning_rate)


TRAINING = tuple(entry.name for entry in fields(TrainingSettings))


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
    """

    network: StandardizedNet
    weights_note: str
    notes: list[str]
    history: list[dict[str, float]]
    epoch: int
    loss: float


def apply_settings(
    method: StudyMethod, training: TrainingSettings, settings: Mapping[str, Any]
) -> tuple[StudyMethod, TrainingSettings]:
    """Return a method and its training with some settings changed.

    Args:
        method: the method, whose own settings count first.
        training: settings of the study.
        settings: values by name: of the training, the weights of the method, or arguments of its network.

    Raises:
        ValueError: when there is no such setting.

    Example:
        >>> from monai_mil_ext.apps.study.methods import parse_methods
        >>> method, training = apply_settings(parse_methods("ABMIL")[0], TrainingSettings(), {"hidden_size": 32})
        >>> method.network["hidden_size"]
        32
    """
    values = {**method.settings, **settings}
    known = setting_names(method)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"settings of {method.name} must be of {', '.join(known)}, got {unknown}.")
    arguments = {name: value for name, value in values.items() if name not in (*TRAINING, *WEIGHTS)}
    weights = {name: value for name, value in values.items() if name in WEIGHTS}
    changed = replace(method, network={**method.network, **arguments}, settings={}, **weights)
    return changed, replace(training, **{name: value for name, value in values.items() if name in TRAINING})


def setting_names(method: StudyMethod) -> list[str]:
    """Return the names of the settings of a method: of the training, weights of its loss, arguments of its network."""
    return sorted({*TRAINING, *WEIGHTS, *method.arguments()} - {"in_features", "num_classes", "seed"})


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
    bags = _Bags(statistics, outputs, training, device, bool(method.guidance) and has_positions(train_items))
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
    notes = [*_missing_terms(method, task), *_position_note(method, bags)]
    return TrainedFold(network.cpu().eval(), outputs.note, notes, keeper.history, keeper.epoch, keeper.loss)


@dataclass(frozen=True)
class _Bags:
    """Loaders of the bags of a fold; in training, with the positions of the instances in mm if the loss uses them."""

    statistics: FeatureStatistics
    outputs: TaskOutputs
    training: TrainingSettings
    device: torch.device
    positions: bool = False

    def loader(self, items: Items, train: bool) -> DataLoader:
        """Return a loader of batches; of training, in another order in each epoch."""
        cached = feature_bytes(items, len(self.statistics.mean)) <= CACHED * available_memory()
        most = self.training.max_instances if train else None
        keys = ["image", POSITION] if self.positions and train else ["image"]
        load = LoadBagd(keys) if cached or most is None else RandLoadBagd(keys, most, stratified=True)
        steps = [
            PatientBagd("image", load),
            SelectItemsd([*keys, "label", CASE]),
            NormalizeIntensityd("image", self.statistics.mean, self.statistics.scale),
        ]
        if POSITION in keys:
            steps.append(CastToTyped(POSITION, torch.float32))
        if cached and most is not None:
            steps.append(RandSampleInstancesd(keys, most, stratified=True))
        transform = Compose(steps)
        transform.set_random_state(self.training.seed)
        data = [
            {**_input(item), "label": label} for item, label in zip(items, self.outputs.targets(items), strict=True)
        ]
        dataset = CacheDataset(data, transform, progress=False) if cached else Dataset(data, transform)
        sizes = bag_sizes(items, max_instances=most)
        sampler = BagBatchSampler(
            sizes,
            self._batch_instances(sizes),
            self._batch_size(len(items)),
            shuffle=train,
            seed=self.training.seed,
        )
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=BagCollate(keys), num_workers=0)

    def _batch_size(self, num_items: int) -> int:
        size = self.training.batch_size or max(1, min(16, num_items // 8))
        return max(size, RISK_SET) if self.outputs.task.kind == "cox" else size

    def _batch_instances(self, sizes: Sequence[int]) -> int:
        most = self.training.batch_instances
        return max(most, RISK_SET * max(sizes)) if self.outputs.task.kind == "cox" else most


def _input(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("image", CASE, "start", "stop", "slide") if name in item}


def has_positions(items: Items) -> bool:
    """Return whether each bag is one file with a position (N,) in mm of each instance, as those of scans are.

    Bags of several files have none in common, and the places of tokens in 3D are no order.
    """
    return all(isinstance(item["image"], (str, os.PathLike)) and _has_positions(item) for item in items)


def _has_positions(item: Mapping[str, Any]) -> bool:
    with open_bag(item["image"], item.get("slide")) as bag:
        return POSITION in bag.info().keys and bag.read([POSITION], range(1))[POSITION].ndim == 1


def feature_bytes(items: Items, in_features: int) -> int:
    """Return the bytes of the features of all bags in float32."""
    return 4 * in_features * sum(bag_sizes(items))


def _trainer(net: nn.Module, method: StudyMethod, bags: _Bags, items: Items) -> SupervisedTrainer:
    settings = bags.training
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    return SupervisedTrainer(
        device=bags.device,
        max_epochs=settings.epochs,
        train_data_loader=bags.loader(items, train=True),
        network=net,
        optimizer=optimizer,
        loss_function=bags.outputs.loss().to(bags.device),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        train_handlers=[LrScheduleHandler(schedule, print_lr=False), *_terms(net, method, bags)],
        amp=bags.device.type == "cuda",
        decollate=False,
    )


def _terms(net: nn.Module, method: StudyMethod, bags: _Bags) -> list[Any]:
    """Return the handlers of the further terms of the loss."""
    handlers = _attention_terms(method, bags)
    inner, path = net, ""  # of the network of the method, within a head and a network of several sources
    while isinstance(inner, (CORAL, SourceNet)):
        inner, path = inner.net, f"net.{path}"
    if method.mining:
        handlers.append(MaskedHardInstanceHandler(weight=method.mining, embedding_layer=f"{path}classify"))
    if method.branches:
        layer, weight = f"{path}branch_tap", method.branches
        branches = partial(_OrderedBranches, net) if isinstance(net, CORAL) else BranchLossHandler
        handlers.append(branches(layer=layer, weight=weight))
        if hasattr(inner, "mask_top"):
            prior, layer = BranchDiversityLoss(), f"{path}mask_top"
            handlers.append(AttentionPriorHandler(prior, layer=layer, weight=weight, name="branch_diversity"))
    if method.instances and _has_instance_loss(bags.outputs.task):
        loss = CLAMInstanceLoss(subtyping=not bags.outputs.task.is_binary)
        handlers.append(InstanceLossHandler(loss, layer=f"{path}instance_tap", weight=method.instances))
    if math.isfinite(bags.training.gradient_clip):
        handlers.append(GradientClipHandler(net, bags.training.gradient_clip))
    return handlers


def _attention_terms(method: StudyMethod, bags: _Bags) -> list[Any]:
    """Return the handlers of the terms on attention."""
    priors: dict[str, tuple[float, Any]] = {
        "attention_prior": (method.guidance, NormalGuidanceLoss()),
        "kernel_guidance": (method.kernel_guidance, KernelGuidanceLoss()),
        "attention_entropy": (method.entropy, AttentionEntropyLoss()),
    }
    handlers: list[Any] = []
    for name, (weight, loss) in priors.items():
        if weight:
            key = POSITION if bags.positions and name == "attention_prior" else None
            handlers.append(AttentionPriorHandler(loss, weight=weight, name=name, positions_key=key))
    if method.anchor:
        handlers.append(method.make_anchor())
    return handlers


def _has_instance_loss(task: Task) -> bool:
    return task.kind == "classification"


def _missing_terms(method: StudyMethod, task: Task) -> list[str]:
    if not method.instances or _has_instance_loss(task):
        return []
    return [f"{method.name} is trained without its instance loss, which needs classes that exclude one another."]


def _position_note(method: StudyMethod, bags: _Bags) -> list[str]:
    return [f"Normal Guidance of {method.name} takes the positions of the slices in mm."] if bags.positions else []


class _OrderedBranches(BranchLossHandler):
    """Loss of branches with one output each, to which the head of ordered classes adds its biases."""

    def __init__(self, head: CORAL, layer: str, weight: float) -> None:
        super().__init__(layer=layer, weight=weight)
        self.head = head

    def term(self, output: Tensor, label: Any, mask: Tensor | None, loss_function: Any) -> Tensor:
        """Compute the loss of branches (B, K, 1)."""
        return super().term(output + self.head.biases, label, mask, loss_function)


def _evaluator(net: BagNet, bags: _Bags, items: Items) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=bags.device,
        val_data_loader=bags.loader(items, train=False),
        network=BagOutputWrapper(net),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        amp=bags.device.type == "cuda",
        decollate=False,
    )


def available_memory() -> int:
    """Return the bytes of memory that a new process could use without swapping."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return free[0] if free else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
