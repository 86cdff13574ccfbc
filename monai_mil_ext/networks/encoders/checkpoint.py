"""Loading of encoder weights from a checkpoint, with one message for all mismatches."""

import os
from pathlib import Path
from typing import Dict, List, Sequence, Union

import torch
from torch import Tensor, nn

__all__ = ["load_encoder_weights"]

NESTED = ("state_dict", "model", "network", "net")
WRAPPER = "module."


def load_encoder_weights(net: nn.Module, path: Union[str, "os.PathLike[str]"], ignore: Sequence[str] = ()) -> None:
    """Load a state dict from a file, plain or under the key ``state_dict``, ``model``, ``network`` or ``net``.

    Args:
        net: network that gets the weights.
        path: checkpoint; it is read with ``weights_only``, so no code in it is run.
        ignore: prefixes of names that need not match, such as those of an unused head. These parts of ``net`` are
            replaced by identities, since their random weights would change every fingerprint of the network.

    Raises:
        ValueError: when weights are missing, unexpected or of another shape; all are listed.

    Example:
        >>> torch.save({"state_dict": {"module.weight": torch.ones(1, 2)}}, "weights.pt")
        >>> load_encoder_weights(nn.Linear(2, 1), "weights.pt")
        Traceback (most recent call last):
        ...
        ValueError: `path` must hold the weights of Linear, got 'weights.pt': missing bias.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    inner = next((content[key] for key in NESTED if isinstance(content, dict) and key in content), content)
    state = {n.removeprefix(WRAPPER): v for n, v in _tensors(inner).items()}
    expected = net.state_dict()
    weights = {n: v for n, v in state.items() if not n.startswith(tuple(ignore))}
    missing = [n for n in expected if n not in weights and not n.startswith(tuple(ignore))]
    unexpected = [n for n in weights if n not in expected]
    shapes = [
        f"{n} of {tuple(v.shape)} for {tuple(expected[n].shape)}"
        for n, v in weights.items()
        if n in expected and v.shape != expected[n].shape
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    message = "; ".join(f"{kind} {', '.join(names)}" for kind, names in faults if names)
    if message:
        raise ValueError(f"`path` must hold the weights of {type(net).__name__}, got {Path(path).name!r}: {message}.")
    net.load_state_dict(weights, strict=False)
    for path_in_net, module in list(net.named_modules()):
        if f"{path_in_net}.".startswith(tuple(ignore)) and any(True for _ in module.parameters(recurse=False)):
            parent, _, name = path_in_net.rpartition(".")
            setattr(net.get_submodule(parent), name, nn.Identity())


def _tensors(content: object) -> Dict[str, Tensor]:
    names: List[object] = list(content) if isinstance(content, dict) else []
    if not isinstance(content, dict) or not all(isinstance(content[name], Tensor) for name in names):
        got = f"a dictionary of {sorted(map(str, names))[:5]}" if names else type(content).__name__
        raise ValueError(f"`path` must hold a dictionary of tensors, got {got}.")
    return content
