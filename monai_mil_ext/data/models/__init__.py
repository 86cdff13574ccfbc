"""Trained models: weights, and the record of what they were trained on."""

from .cohort_summary import summarize_cohort
from .model_record import AT_SITE, RECORD_FILE, ModelRecord, preprocessing_id
from .weights import file_sha256, load_weights

__all__ = [
    "AT_SITE",
    "RECORD_FILE",
    "ModelRecord",
    "file_sha256",
    "load_weights",
    "preprocessing_id",
    "summarize_cohort",
]
