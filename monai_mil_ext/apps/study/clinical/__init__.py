"""Clinical variables beside the bags of a study: encoding, models, fusion and effects."""

from .clinical_folds import Clinical, ClinicalFold, apply_values, fit_fold
from .clinical_models import ClinicalModel
from .covariate_encoding import CovariateEncoding
from .late_fusion import LateFusion
from .variable_effects import effect_table

__all__ = [
    "Clinical",
    "ClinicalFold",
    "ClinicalModel",
    "CovariateEncoding",
    "LateFusion",
    "apply_values",
    "effect_table",
    "fit_fold",
]
