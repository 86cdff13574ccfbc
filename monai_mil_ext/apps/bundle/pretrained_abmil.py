"""Loading of attention networks that were trained on other data, such as FEATHER."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_mil_ext.data.models import load_weights
from monai_mil_ext.networks.nets import ABMIL

__all__ = ["load_pretrained_abmil"]

FILES = ("model.safetensors", "pytorch_model.bin")
LAYERS = {  # of MIL-Lab, gated and not, by ours
    "patch_embed.0": "embed.0",
    "global_attn.attention_a.0": "attend.value",
    "global_attn.attention_b.0": "attend.gate",
    "global_attn.attention_c": "attend.score",
    "global_attn.module.0": "attend.value",
    "global_attn.module.3": "attend.score",
    "classifier": "classify",
}
SIZES = {
    "patch_embed.0.weight": "a projection",
    "global_attn.attention_c.weight or global_attn.module.3.weight": "an attention",
}


def load_pretrained_abmil(
    path: str | os.PathLike[str],
    num_classes: int | None = None,
    in_features: int | None = None,
    dropout: float = 0.25,
) -> ABMIL:
    """Build :py:class:`ABMIL` from weights in the layout of MIL-Lab, such as those of FEATHER.

    Sizes are those of the weights, which stay where they are: this package ships none, and their license is yours to
    keep. Files without a classifier, and those with another number of classes than ``num_classes``, give a network with
    a new one, to be trained. The weights expect the features of their encoder as they are (``takes_raw_features``), so
    that studies and bundles do not standardize them.

    Args:
        path: folder of a model that was downloaded from the hub (``model.safetensors`` or ``pytorch_model.bin``), or
            the file itself; pickles are read with ``weights_only``, so that no code in them is run.
        num_classes: number C of logits; ``None`` keeps those of the file.
        in_features: number of features that the network must take; ``None`` allows any.
        dropout: dropout rate of the projected instances.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when weights are missing, unexpected or of other sizes, or there is no classifier to keep.

    References:
        Shao et al., "Do Multiple Instance Learning Models Transfer?", arXiv:2506.09022.

    Example:
        >>> shapes = {"patch_embed.0": (8, 16), "classifier": (3, 8), "global_attn.attention_c": (1, 4)}
        >>> shapes |= {f"global_attn.attention_{part}.0": (4, 8) for part in "ab"}
        >>> weights = {f"model.{name}.weight": torch.rand(shape) for name, shape in shapes.items()}
        >>> weights |= {f"model.{name}.bias": torch.rand(shape[0]) for name, shape in shapes.items()}
        >>> torch.save(weights, "pytorch_model.bin")
        >>> net = load_pretrained_abmil("pytorch_model.bin", num_classes=2)
        >>> net.in_features, net(torch.rand(1, 5, 16)).shape
        (16, torch.Size([1, 2]))
    """
    file = _find_file(Path(path))
    weights = _read(file)
    net = ABMIL(**_sizes(weights, file.name, num_classes), dropout=dropout)
    if in_features not in (None, net.in_features):
        raise ValueError(f"`path` must hold weights for {in_features} features, got {net.in_features}.")
    own = net.state_dict()
    named = {_own_name(name): weight for name, weight in weights.items()}
    new = {name for name in own if name.startswith("classify.") and own[name].shape != _shape(named.get(name))}
    named = {name: weight for name, weight in named.items() if name not in new}
    faults = sorted(own.keys() - new - named.keys()) + sorted(named.keys() - own.keys())
    faults += [name for name in named if name in own and own[name].shape != named[name].shape]
    if faults:
        raise ValueError(f"`path` must hold the weights of one network, got {file.name!r} with other {faults}.")
    net.load_state_dict(named, strict=False)
    net.takes_raw_features = True
    return net


def _find_file(path: Path) -> Path:
    files = [path / name for name in FILES] if path.is_dir() else [path]
    found = [file for file in files if file.is_file()]
    if not found:
        raise FileNotFoundError(f"`path` must be a file, or a folder with {' or '.join(FILES)}, got {path.name!r}.")
    return found[0]


def _read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without the prefix of a wrapper."""
    return {name.removeprefix("model."): value for name, value in load_weights(file).items()}


def _own_name(name: str) -> str:
    layer, _, parameter = name.rpartition(".")
    return f"{LAYERS[layer]}.{parameter}" if layer in LAYERS else name


def _shape(weight: Tensor | None) -> torch.Size | None:
    return None if weight is None else weight.shape


def _sizes(weights: dict[str, Tensor], name: str, num_classes: int | None) -> dict[str, Any]:
    """Return the arguments of the network that follow from the shapes of its weights."""
    found: list[tuple[int, int]] = []
    for names, what in SIZES.items():
        shapes = [tuple(weights[n].shape) for n in names.split(" or ") if n in weights]
        if not shapes or len(shapes[0]) != 2:
            raise ValueError(f"`path` must hold {names}, {what} in the layout of MIL-Lab, got {name!r} without.")
        found.append((shapes[0][0], shapes[0][1]))
    (hidden_size, in_features), (num_heads, attention_size) = found
    if num_classes is None and "classifier.weight" not in weights:
        raise ValueError(f"`num_classes` must be given for weights without a classifier, got None for {name!r}.")
    return {
        "in_features": in_features,
        "num_classes": len(weights["classifier.weight"]) if num_classes is None else num_classes,
        "hidden_size": hidden_size,
        "attention_size": attention_size,
        "num_heads": num_heads,
        "gated": "global_attn.attention_b.0.weight" in weights,
        "bias": True,
    }
