"""Helpers of bundle configs: checks of overrides, the end of processes, and trained models: folder, record."""

from .cli import check_cli_overrides
from .config_content import content_or_reason
from .model_folder import find_model, is_demonstration, mark_demonstration, training_folder
from .pretrained_abmil import load_pretrained_abmil
from .processes import end_processes
from .trained_model import TrainedModel, build_network, describe_network, save_model, trained_network

__all__ = [
    "TrainedModel",
    "build_network",
    "check_cli_overrides",
    "content_or_reason",
    "describe_network",
    "end_processes",
    "find_model",
    "is_demonstration",
    "load_pretrained_abmil",
    "mark_demonstration",
    "save_model",
    "trained_network",
    "training_folder",
]
