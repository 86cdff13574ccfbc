"""Which network a file of weights belongs to, where the shapes of the weights do not tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from .files import write_json
from .settings_file import read_settings

__all__ = ["check_network", "write_network"]

PLAIN = (bool, int, float, str, type(None))


def write_network(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Write the classes and options of all modules of ``net``, such as numbers of heads, to a JSON file.

    Dropout is left out, and what begins with an underscore: they are no part of what a trained network answers.
    """
    write_json(Path(path), _options(net))


def check_network(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Raise ``ValueError`` if ``net`` is another network than the one that ``write_network`` wrote to ``path``.

    Weights of attention with 8 heads have the shapes of those with 4: they would load into the wrong one without a
    word, and give other answers. What only one of the two has is left to ``load_state_dict``, and where there is no
    file, there is nothing to compare.

    Args:
        path: of the JSON file beside the weights.
        net: what the weights are meant for.

    Raises:
        ValueError: naming up to three options that differ, or when the file is no JSON object.

    Example:
        >>> write_network("network.json", nn.MultiheadAttention(8, num_heads=4))
        >>> check_network("network.json", nn.MultiheadAttention(8, num_heads=2))
        Traceback (most recent call last):
        ...
        ValueError: `network_def` must be the network that was trained, whose num_heads is 4, got 2; ...
    """
    trained, given = read_settings(path), _options(net)
    other = [name for name in given if name in trained and trained[name] != given[name]]
    if other:
        said = "; ".join(f"whose {name} is {trained[name]}, got {given[name]}" for name in other[:3])
        raise ValueError(
            f"`network_def` must be the network that was trained, {said}; give the --network_def#... that training got."
        )


def _options(net: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, module in net.named_modules():
        dot = f"{place}." if place else ""
        if "Dropout" in type(module).__name__:
            continue
        found[f"{dot}class"] = type(module).__name__
        for name, value in vars(module).items():
            if name.startswith("_") or "drop" in name or name == "training":
                continue
            if isinstance(value, PLAIN):
                found[dot + name] = value
            elif isinstance(value, (tuple, list)) and all(isinstance(part, PLAIN) for part in value):
                found[dot + name] = list(value)
    return found
