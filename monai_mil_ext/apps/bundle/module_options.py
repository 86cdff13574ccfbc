"""Options of all modules of a network, which tell networks apart whose weights have the same shapes."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["network_options"]

PLAIN = (bool, int, float, str, type(None))


def network_options(net: nn.Module) -> dict[str, Any]:
    """Return the classes and plain options of all modules of a network, such as the number of heads.

    Weights of attention with 8 heads have the same shapes as those with 4, so they would load silently into the wrong
    network and give wrong predictions.
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
