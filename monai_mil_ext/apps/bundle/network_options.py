"""Options of all modules of a network, which tell networks apart whose weights have the same shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["check_network_options", "network_options"]

PLAIN = (bool, int, float, str, type(None))


def network_options(net: nn.Module) -> dict[str, Any]:
    """Return the classes and plain options of all modules of a network, such as the number of heads.

    Dropout and private attributes are left out, since they do not change the predictions of a trained network.

    Example:
        >>> network_options(nn.ReLU())
        {'class': 'ReLU', 'inplace': False}
    """
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


def check_network_options(trained: Mapping[str, Any], net: nn.Module) -> None:
    """Raise ``ValueError`` if options of ``net`` differ from those of the network that was trained.

    Weights of attention with 8 heads have the same shapes as those with 4, so they would load silently into the wrong
    network and give wrong predictions. Options that only one of the two networks has are left to ``load_state_dict``.

    Args:
        trained: options of the trained network, see :py:func:`network_options`.
        net: network that will load the weights.

    Raises:
        ValueError: when options differ, of which up to three are named.

    Example:
        >>> check_network_options(network_options(nn.MultiheadAttention(8, 4)), nn.MultiheadAttention(8, 2))
        Traceback (most recent call last):
        ...
        ValueError: `network_def` must be the network that was trained, whose num_heads is 4, got 2; ...
    """
    current = network_options(net)
    names = [name for name in current if name in trained and trained[name] != current[name]]
    if names:
        differences = "; ".join(f"whose {name} is {trained[name]}, got {current[name]}" for name in names[:3])
        raise ValueError(
            f"`network_def` must be the network that was trained, {differences}; "
            "pass the --network_def#... options of the training."
        )
