"""Training of one network on the training part of a fold: settings, bags, terms of the loss, best epoch."""

from .fold_bags import available_memory, feature_bytes
from .fold_training import TrainedFold, train_bag_network
from .training_history import BestEpoch, Report
from .training_settings import TrainingSettings, apply_settings, setting_names

__all__ = [
    "BestEpoch",
    "Report",
    "TrainedFold",
    "TrainingSettings",
    "apply_settings",
    "available_memory",
    "feature_bytes",
    "setting_names",
    "train_bag_network",
]
