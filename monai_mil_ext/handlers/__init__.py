"""Ignite handlers for MONAI's trainers and evaluators."""

from . import losses, savers
from .bag_figures import BagFigureHandler
from .bag_metric_handler import BagMetricHandler
from .best_epoch import BestEpochSaver
from .ddp_loss_weight import DDPLossWeightHandler
from .epoch_mean import EpochMeanHandler
from .folder_uploader import FolderUploader
from .instance_sets import InstanceSetHandler
from .losses import *
from .savers import *
from .stability_recorder import AttentionStabilityHandler
from .temperature_scaling import TemperatureScalingHandler
from .token_count import TokenCountHandler
from .training_state import TrainingState, find_checkpoint
from .weights_loader import WeightsLoader

__all__ = [
    "AttentionStabilityHandler",
    "BagFigureHandler",
    "BagMetricHandler",
    "BestEpochSaver",
    "DDPLossWeightHandler",
    "EpochMeanHandler",
    "FolderUploader",
    "InstanceSetHandler",
    "TemperatureScalingHandler",
    "TokenCountHandler",
    "TrainingState",
    "WeightsLoader",
    "find_checkpoint",
]
__all__ += losses.__all__
__all__ += savers.__all__
