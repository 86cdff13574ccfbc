"""Ignite handlers."""

from .attention_anchor import AttentionAnchorHandler
from .attention_prior import AttentionPriorHandler
from .attention_stability import AttentionStabilityHandler
from .bag_figures import BagFigureHandler
from .bag_metric import BagMetricHandler
from .bag_predictions import BagPredictionsSaver
from .bag_results import BagResultsSaver
from .bag_share import BagShareHandler
from .batch_inference import BatchInference, ScanBatchInference, SlideBatchInference
from .best_epoch import BestEpochSaver
from .branch_loss import BranchLossHandler
from .gradient_clip import GradientClipHandler
from .proximal_l1 import ProximalL1Handler
from .results_saver import ResultsSaver
from .scan_results import ScanResultsSaver
from .score_anchor import ScoreAnchor
from .score_hook import RecordedScores, ScoreHook, call_after_run
from .score_term import ScoreTermHandler
from .slide_results import SlideResultsSaver
from .temperature import TemperatureHandler
from .tokens_kept import TokensKeptHandler
from .training_state import TrainingState, find_checkpoint

__all__ = [
    "AttentionAnchorHandler",
    "AttentionPriorHandler",
    "AttentionStabilityHandler",
    "BagFigureHandler",
    "BagMetricHandler",
    "BagPredictionsSaver",
    "BagResultsSaver",
    "BagShareHandler",
    "BatchInference",
    "BestEpochSaver",
    "BranchLossHandler",
    "GradientClipHandler",
    "ProximalL1Handler",
    "RecordedScores",
    "ResultsSaver",
    "ScanBatchInference",
    "ScanResultsSaver",
    "ScoreAnchor",
    "ScoreHook",
    "ScoreTermHandler",
    "SlideBatchInference",
    "SlideResultsSaver",
    "TemperatureHandler",
    "TokensKeptHandler",
    "TrainingState",
    "call_after_run",
    "find_checkpoint",
]
