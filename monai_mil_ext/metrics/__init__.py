"""Metrics on tensors."""

from .instance_localization import InstanceLocalizationMetric, center_scores, localization
from .report import bag_report, bag_values, bootstrap_interval, instance_values

__all__ = [
    "InstanceLocalizationMetric",
    "bag_report",
    "bag_values",
    "bootstrap_interval",
    "center_scores",
    "instance_values",
    "localization",
]
