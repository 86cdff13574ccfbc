"""Helpers of bundle configs: checks of overrides, the end of processes, and trained models with their record."""

from .cli import check_cli_overrides
from .processes import end_processes
from .trained_model import TrainedModel, build_network, describe_network, save_model, trained_network

__all__ = [
    "TrainedModel",
    "build_network",
    "check_cli_overrides",
    "describe_network",
    "end_processes",
    "save_model",
    "trained_network",
]
