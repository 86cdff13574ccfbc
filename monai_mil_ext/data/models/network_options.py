"""Comparison of the options of two networks, which weights of equal shapes do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_same_options"]


def check_same_options(trained: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if options of a network differ from those of the network that was trained.

    Options that only one of the two networks has are left to ``load_state_dict``.

    Example:
        >>> check_same_options({"num_heads": 4}, {"num_heads": 2})
        Traceback (most recent call last):
        ...
        ValueError: `network_def` must be the network that was trained, whose num_heads is 4, got 2; ...
    """
    names = [name for name in current if name in trained and trained[name] != current[name]]
    if names:
        differences = "; ".join(f"whose {name} is {trained[name]}, got {current[name]}" for name in names[:3])
        raise ValueError(
            f"`network_def` must be the network that was trained, {differences}; "
            "pass the --network_def#... options of the training."
        )
