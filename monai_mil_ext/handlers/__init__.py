"""Ignite handlers for MONAI's trainers and evaluators."""

from .bag_figures import BagFigureHandler
from .bag_metric_handler import BagMetricHandler
from .best_epoch import BestEpochSaver
from .ddp_loss_weight import DDPLossWeightHandler
from .losses import (
    AttentionAnchorHandler,
    AttentionPriorHandler,
    AuxiliaryLossHandler,
    BranchLossHandler,
    EMATeacher,
    GradientClipHandler,
    ProximalL1Handler,
    ScoreHook,
)
from .savers import (
    BagPredictionsSaver,
    BagResultsSaver,
    BatchInference,
    ResultsSaver,
    ScanBatchInference,
    ScanResultsSaver,
    SlideBatchInference,
    SlideResultsSaver,
)
from .stability_recorder import AttentionStabilityHandler
from .temperature_scaling import TemperatureScalingHandler
from .token_count import TokenCountHandler
from .training_state import TrainingState, find_checkpoint

__all__ = [
    "AttentionAnchorHandler",
    "AttentionPriorHandler",
    "AttentionStabilityHandler",
    "AuxiliaryLossHandler",
    "BagFigureHandler",
    "BagMetricHandler",
    "BagPredictionsSaver",
    "BagResultsSaver",
    "BatchInference",
    "BestEpochSaver",
    "BranchLossHandler",
    "DDPLossWeightHandler",
    "EMATeacher",
    "GradientClipHandler",
    "ProximalL1Handler",
    "ResultsSaver",
    "ScanBatchInference",
    "ScanResultsSaver",
    "ScoreHook",
    "SlideBatchInference",
    "SlideResultsSaver",
    "TemperatureScalingHandler",
    "TokenCountHandler",
    "TrainingState",
    "find_checkpoint",
]
