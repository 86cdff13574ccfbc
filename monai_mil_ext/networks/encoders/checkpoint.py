"""Weights from a file into a network, with everything that does not fit said at once."""

import os
from pathlib import Path
from typing import Dict, List, Sequence, Union

import torch
from torch import Tensor, nn

__all__ = ["load_encoder_weights"]

NESTED = ("state_dict", "model", "network", "net")
WRAPPER = "module."


def load_encoder_weights(net: nn.Module, path: Union[str, "os.PathLike[str]"], ignore: Sequence[str] = ()) -> None:
    """Load a checkpoint of tensors, plain or as ``state_dict``, ``model``, ``network`` or ``net`` of a dictionary.

    Args:
        net: gets the weights.
        path: read with ``weights_only``: nothing of it is run.
        ignore: beginnings of names that need not match, such as those of a head that is not used. These parts of
            ``net`` are taken out: their weights would be random, and another number in every fingerprint.

    Raises:
        ValueError: when weights are missing, not known to ``net`` or of another shape; all are listed.

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
    wanted = net.state_dict()
    kept = {n: v for n, v in state.items() if not n.startswith(tuple(ignore))}
    missing = [n for n in wanted if n not in kept and not n.startswith(tuple(ignore))]
    unexpected = [n for n in kept if n not in wanted]
    shapes = [
        f"{n} of {tuple(v.shape)} for {tuple(wanted[n].shape)}"
        for n, v in kept.items()
        if n in wanted and v.shape != wanted[n].shape
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    found = "; ".join(f"{kind} {', '.join(names)}" for kind, names in faults if names)
    if found:
        raise ValueError(f"`path` must hold the weights of {type(net).__name__}, got {Path(path).name!r}: {found}.")
    net.load_state_dict(kept, strict=False)
    for name, module in list(net.named_modules()):
        if f"{name}.".startswith(tuple(ignore)) and any(True for _ in module.parameters(recurse=False)):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, nn.Identity())


def _tensors(content: object) -> Dict[str, Tensor]:
    names: List[object] = list(content) if isinstance(content, dict) else []
    if not isinstance(content, dict) or not all(isinstance(content[name], Tensor) for name in names):
        got = f"a dictionary of {sorted(map(str, names))[:5]}" if names else type(content).__name__
        raise ValueError(f"`path` must hold a dictionary of tensors, got {got}.")
    return content
