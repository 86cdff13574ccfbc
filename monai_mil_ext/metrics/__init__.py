"""Metrics of bags, instances and attention."""

from . import conformal
from .attention_concentration import AttentionMassMetric, MassCurve, attention_mass, mass_curve
from .attention_stability import attention_changes, attention_divergence, attention_instability, attention_uniformity
from .bag_classification import BagClassificationMetric, bag_values
from .bag_iteration_metric import BagIterationMetric
from .bootstrap import paired_bootstrap
from .calibration import TemperatureScaling, brier_score, expected_calibration_error
from .concordance import ConcordanceIndexMetric, concordance_index
from .conformal import *
from .folds import fold_summary, summarize_folds
from .instance_localization import (
    InstanceLocalizationMetric,
    LocalizationCurves,
    center_scores,
    localization,
    localization_curves,
    localization_skill,
    pointing_game,
    precision_at_recall,
)
from .lesion_froc import FROCMetric, LesionHits, froc_values, lesion_hits
from .operating_point import (
    sensitivity_specificity,
    threshold_at_sensitivity,
    threshold_at_specificity,
    threshold_at_youden,
)
from .per_class import class_values
from .report import bag_report, bootstrap_interval, instance_values
from .seeds import compare_over_seeds, seed_summary

__all__ = [
    "AttentionMassMetric",
    "BagClassificationMetric",
    "BagIterationMetric",
    "ConcordanceIndexMetric",
    "FROCMetric",
    "InstanceLocalizationMetric",
    "LesionHits",
    "LocalizationCurves",
    "MassCurve",
    "TemperatureScaling",
    "attention_changes",
    "attention_divergence",
    "attention_instability",
    "attention_mass",
    "attention_uniformity",
    "bag_report",
    "bag_values",
    "bootstrap_interval",
    "brier_score",
    "center_scores",
    "class_values",
    "compare_over_seeds",
    "concordance_index",
    "expected_calibration_error",
    "fold_summary",
    "froc_values",
    "instance_values",
    "lesion_hits",
    "localization",
    "localization_curves",
    "localization_skill",
    "mass_curve",
    "paired_bootstrap",
    "pointing_game",
    "precision_at_recall",
    "seed_summary",
    "sensitivity_specificity",
    "summarize_folds",
    "threshold_at_sensitivity",
    "threshold_at_specificity",
    "threshold_at_youden",
]
__all__ += conformal.__all__
