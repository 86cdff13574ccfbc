"""Loading of weights published by the authors of a method."""

from fnmatch import fnmatchcase
from typing import List, Mapping, Sequence, Tuple, Union

import torch
from torch import Tensor

from .bag_net import BagNet

__all__ = ["load_reference_state_dict"]


def load_reference_state_dict(net: BagNet, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the weights of a published checkpoint into a network of this package with the same configuration.

    The method ``reference_names()`` of the network maps published names to its own, and the patterns in
    ``reference_ignored`` match published tensors that it does not use. A published tensor that is one row of a tensor
    of ours maps to a name and an index, or a slice where it has the axis of rows; the index ``None`` means one
    additional axis of size 1, and ``"T"`` the transpose. Tensors that match ``reference_zero`` have no place in the
    network, so that they must be zero. Weights are copied only if all of them fit.

    Args:
        net: network with published weights, such as :py:class:`QGMIL`.
        state_dict: tensors by their published names, or a checkpoint with them under ``model``.

    Raises:
        ValueError: when the network has no published weights, names are missing or unexpected, shapes differ, or a
            tensor should be zero; the message lists all names and shapes.

    Example:
        >>> from monai_mil_ext.networks.nets import QGMIL
        >>> net, other = (QGMIL(in_features=8, num_classes=1, hidden_size=8) for _ in range(2))
        >>> published = {name: other.state_dict()[ours] for name, ours in net.reference_names().items()}
        >>> load_reference_state_dict(net, published)
        >>> torch.equal(net.eval()(torch.ones(1, 5, 8)), other.eval()(torch.ones(1, 5, 8)))
        True
    """
    reference_names = getattr(net, "reference_names", None)
    if reference_names is None:
        raise ValueError(f"`net` must be a network with published weights, got {type(net).__name__}.")
    weights = net.state_dict()
    targets = {name: _target(weights, ours) for name, ours in reference_names().items()}
    inner = state_dict.get("model")
    if isinstance(inner, Mapping):
        state_dict = inner
    ignored, zero = getattr(net, "reference_ignored", ()), getattr(net, "reference_zero", ())
    others = [name for name in state_dict if name not in targets]
    faults = {
        "missing": [name for name in targets if name not in state_dict],
        "unexpected": [name for name in others if not _matches(name, (*ignored, *zero))],
        "not zero": [name for name in others if _matches(name, zero) and state_dict[name].any()],
        "of another shape": [
            f"{name} {tuple(state_dict[name].shape)} for {tuple(target.shape)}"
            for name, target in targets.items()
            if name in state_dict and state_dict[name].shape != target.shape
        ],
    }
    if any(faults.values()):
        raise ValueError(_message(type(net).__name__, faults))
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(state_dict[name])


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _target(weights: Mapping[str, Tensor], ours: Union[str, Tuple[str, Union[int, slice, str, None]]]) -> Tensor:
    """Return the tensor, or the view of a tensor, that a published tensor is copied to."""
    if isinstance(ours, str):
        return weights[ours]
    name, index = ours
    return weights[name].T if isinstance(index, str) else weights[name][index]


def _message(net: str, faults: Mapping[str, List[str]]) -> str:
    lists = [f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names]
    return "\n".join([f"`state_dict` must have the weights of {net}, got", *lists])
