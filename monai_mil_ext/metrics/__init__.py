"""Metrics of bags, instances and attention."""

from .attention_stability import (
    attention_changes,
    attention_divergence,
    attention_instability,
    attention_uniformity,
)
from .average_curves import LocalizationCurves, localization_curves
from .bag_classification import BagClassificationMetric, bag_values
from .bag_metric import BagIterationMetric
from .calibration import TemperatureScaling, brier_score, expected_calibration_error
from .concentration import AttentionMassMetric, attention_mass
from .concordance import ConcordanceIndexMetric, concordance_index
from .folds import fold_summary, summarize_folds
from .instance_localization import InstanceLocalizationMetric, center_scores, localization
from .instance_search import localization_skill, pointing_game, precision_at_recall
from .lesion_froc import FROCMetric, LesionHits, froc_values, lesion_hits
from .mass_curves import MassCurve, mass_curve
from .operating_point import sensitivity_specificity, threshold_at_sensitivity, threshold_at_specificity
from .paired import paired_bootstrap
from .report import bag_report, bootstrap_interval, instance_values
from .seeds import compare_over_seeds, seed_summary
from .shifted_runs import RunPosterior, run_posterior, shift_evidence

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
    "RunPosterior",
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
    "run_posterior",
    "seed_summary",
    "sensitivity_specificity",
    "shift_evidence",
    "summarize_folds",
    "threshold_at_sensitivity",
    "threshold_at_specificity",
]
