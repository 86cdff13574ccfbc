"""Metrics on tensors."""

from .attention_stability import attention_divergence, attention_uniformity
from .concentration import AttentionMassMetric, attention_mass
from .instance_localization import InstanceLocalizationMetric, center_scores, localization
from .report import bag_report, bag_values, bootstrap_interval, instance_values

__all__ = [
    "AttentionMassMetric",
    "InstanceLocalizationMetric",
    "attention_divergence",
    "attention_mass",
    "attention_uniformity",
    "bag_report",
    "bag_values",
    "bootstrap_interval",
    "center_scores",
    "instance_values",
    "localization",
]
