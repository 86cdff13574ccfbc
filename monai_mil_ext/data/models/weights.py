"""Files of network weights, as several frameworks write them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.data.bags.torch_bag import NUMPY_GLOBALS
from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.utils.files import load_tensors
from monai_mil_ext.utils.remote import StoreError, isfile, local_copy

__all__ = ["file_sha256", "load_weights"]

load_file = optional_dependency("encoders", "safetensors.torch", "load_file")
CONTAINERS = ("model", "network", "net", "state_dict", "model_state_dict")
WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def load_weights(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Tensor]:
    """Load the state dict of a network, without pickle.

    It may lie in a dictionary under ``model`` (NVIDIA FLARE's ``{"model": ..., "train_conf": ...}``, whose values may
    be arrays), ``network`` (MONAI's ``CheckpointSaver``), ``net``, ``state_dict`` or ``model_state_dict``, and its
    names may have the prefixes of ``DistributedDataParallel`` and ``torch.compile``.

    Args:
        path: the file, or its address in an object store.
        map_location: device of the tensors, see ``torch.load``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file can't be read safely or holds no state dict.

    Example:
        >>> torch.save({"model": {"module.weight": torch.ones(2)}, "train_conf": {}}, "model.pt")
        >>> load_weights("model.pt")
        {'weight': tensor([1., 1.])}
    """
    if Path(path).suffix == ".safetensors":
        content: Any = _load_safetensors(path, map_location)
    else:
        with torch.serialization.safe_globals(NUMPY_GLOBALS):
            content = load_tensors(path, map_location)
    weights = _find_state_dict(content)
    if weights is None:
        raise ValueError(f"`path` must hold the state dict of a network, got {Path(path).name!r} without one.")
    return {_unwrapped(name): torch.as_tensor(value) for name, value in weights.items()}


def _load_safetensors(path: str | os.PathLike[str], map_location: Any) -> Any:
    if not isfile(path):
        raise FileNotFoundError(f"`path` must be a file of weights that exists, got {Path(path).name!r}.")
    try:
        with local_copy(path) as local:
            return load_file(str(local), device=str(map_location))
    except StoreError:
        raise
    except Exception as error:  # of a damaged file
        raise ValueError(f"`path` must be an undamaged file of weights, got {Path(path).name!r}.") from error


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with local_copy(path) as copy, copy.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_state_dict(content: Any) -> Mapping[str, Any] | None:
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(value, (Tensor, np.ndarray)) for value in content.values()):
        return content
    found = [_find_state_dict(content[name]) for name in CONTAINERS if name in content]
    return next((weights for weights in found if weights is not None), None)


def _unwrapped(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.removeprefix(WRAPPERS[0]).removeprefix(WRAPPERS[1])
    return name
