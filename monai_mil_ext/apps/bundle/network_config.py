"""Network options and settings saved next to the weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from monai_mil_ext.data.models.network_options import check_same_options
from monai_mil_ext.utils import write_json

__all__ = [
    "check_network_config",
    "read_json",
    "save_network_config",
]


PLAIN = (bool, int, float, str, type(None))


def save_network_config(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Write the classes and options of all modules of ``net``, such as the number of heads, to a JSON file.

    Dropout and private attributes are left out, since they do not change the predictions of a trained network.
    """
    write_json(Path(path), network_options(net))


def check_network_config(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Raise ``ValueError`` if ``net`` differs from the network that ``save_network_config`` recorded in ``path``.

    Weights of attention with 8 heads have the same shapes as those with 4, so they would load silently into the wrong
    network and give wrong predictions. Options that only one of the two networks has are left to ``load_state_dict``.
    Nothing is checked if the file does not exist.

    Args:
        path: JSON file next to the weights.
        net: network that will load the weights.

    Raises:
        ValueError: when options differ, of which up to three are named, or when the file is not a JSON object.

    Example:
        >>> save_network_config("network.json", nn.MultiheadAttention(8, num_heads=4))
        >>> check_network_config("network.json", nn.MultiheadAttention(8, num_heads=2))
        Traceback (most recent call last):
        ...
        ValueError: `network_def` must be the network that was trained, whose num_heads is 4, got 2; ...
    """
    check_network_options(read_json(path), net)


def check_network_options(trained: Mapping[str, Any], net: nn.Module) -> None:
    """Raise ``ValueError`` if options of ``net`` differ from those of the network that was trained."""
    check_same_options(trained, network_options(net))


def network_options(net: nn.Module) -> dict[str, Any]:
    """Return class and plain options of all modules of a network, which weights of equal shapes do not tell."""
    options: dict[str, Any] = {}
    for path, module in net.named_modules():
        prefix = f"{path}." if path else ""
        if "Dropout" in type(module).__name__:
            continue
        options[f"{prefix}class"] = type(module).__name__
        for name, value in vars(module).items():
            if name.startswith("_") or "drop" in name or name == "training":
                continue
            if isinstance(value, PLAIN):
                options[prefix + name] = value
            elif isinstance(value, (tuple, list)) and all(isinstance(part, PLAIN) for part in value):
                options[prefix + name] = list(value)
    return options


def read_json(path: str | os.PathLike[str], **defaults: Any) -> dict[str, Any]:
    """Read settings from a JSON file, with defaults for those that it lacks.

    A missing file gives the defaults, so that a config can be parsed before training, as the tools of the model zoo
    do.

    Args:
        path: JSON file.
        **defaults: every setting that a config reads, with its default.

    Raises:
        ValueError: when the file exists and is not a JSON object.

    Example:
        >>> read_json("absent.json", num_classes=2)
        {'num_classes': 2}
    """
    file = Path(path)
    if not file.is_file():
        return dict(defaults)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"`path` must be a JSON file of settings, got {file.name!r}.")
    return {**defaults, **content}
