"""Handlers that write the results of evaluation and inference."""

from .bag_predictions import BagPredictionsSaver
from .bag_results import BagResultsSaver
from .batch_inference import BatchInference, ScanBatchInference, SlideBatchInference
from .infer_or_status import InferOrStatus, check_options
from .record_saver import ModelRecordSaver
from .results_saver import ResultsSaver
from .scan_results import ScanResultsSaver
from .slide_results import SlideResultsSaver

__all__ = [
    "BagPredictionsSaver",
    "BagResultsSaver",
    "BatchInference",
    "InferOrStatus",
    "ModelRecordSaver",
    "ResultsSaver",
    "ScanBatchInference",
    "ScanResultsSaver",
    "SlideBatchInference",
    "SlideResultsSaver",
    "check_options",
]
