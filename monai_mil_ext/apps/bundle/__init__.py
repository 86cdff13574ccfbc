"""Helpers of bundle configs: checks of overrides, and trained models with their record."""

from .cli import check_cli_overrides
from .trained_model import TrainedModel, build_network, describe_network, save_model, trained_network

__all__ = [
    "TrainedModel",
    "build_network",
    "check_cli_overrides",
    "describe_network",
    "save_model",
    "trained_network",
]
