"""Settings of a training, and of the method that it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from monai_mil_ext.apps.study.methods import WEIGHTS, StudyMethod
from monai_mil_ext.utils import check_positive, check_positive_number

__all__ = ["TrainingSettings", "apply_settings", "setting_names"]


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
