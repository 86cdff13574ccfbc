"""Synthetic data sets with known instance labels."""

from . import lesions
from .labeled_pool import LabeledPoolBagDataset
from .lesions import *
from .shifted_mean import RunPosterior, ShiftedMeanDataset, run_posterior, shift_evidence

__all__ = [
    "LabeledPoolBagDataset",
    "RunPosterior",
    "ShiftedMeanDataset",
    "run_posterior",
    "shift_evidence",
]
__all__ += lesions.__all__
