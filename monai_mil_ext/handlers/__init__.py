"""Ignite handlers."""

from .attention_prior import AttentionPriorHandler
from .bag_results import BagResultsSaver
from .scan_results import ScanResultsSaver
from .score_hook import RecordedScores, ScoreHook, call_after_run
from .training_state import TrainingState, find_checkpoint

__all__ = [
    "AttentionPriorHandler",
    "BagResultsSaver",
    "RecordedScores",
    "ScanResultsSaver",
    "ScoreHook",
    "TrainingState",
    "call_after_run",
    "find_checkpoint",
]
