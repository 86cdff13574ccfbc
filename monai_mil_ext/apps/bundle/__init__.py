"""Helpers of bundle configs: command-line checks and the record of a network."""

from .cli import check_cli_overrides
from .network_config import check_network_config, read_json, save_network_config

__all__ = [
    "check_cli_overrides",
    "check_network_config",
    "read_json",
    "save_network_config",
]
