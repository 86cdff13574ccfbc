"""Synthetic data sets with known instance labels."""

from .labeled_pool import LabeledPoolBagDataset
from .shifted_mean import RunPosterior, ShiftedMeanDataset, run_posterior, shift_evidence

__all__ = [
    "LabeledPoolBagDataset",
    "RunPosterior",
    "ShiftedMeanDataset",
    "run_posterior",
    "shift_evidence",
]
