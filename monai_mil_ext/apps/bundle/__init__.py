"""Helpers of bundle configs: command-line checks and the record of a network."""

from .cli import check_cli_overrides
from .network_config import check_network_config, read_json, save_network_config
from .trained_model import TrainedModel, build_network, describe_network, save_model

__all__ = [
    "TrainedModel",
    "build_network",
    "check_cli_overrides",
    "check_network_config",
    "describe_network",
    "read_json",
    "save_model",
    "save_network_config",
]
