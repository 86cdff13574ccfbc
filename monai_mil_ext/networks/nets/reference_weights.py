"""Loading weights that the authors of a method published."""

from fnmatch import fnmatchcase
from typing import List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor

from .bag_net import BagNet

__all__ = ["load_reference_state_dict"]


def load_reference_state_dict(net: BagNet, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the weights of a published checkpoint into one of our networks of the same configuration.

    The network says which published names are its own, by ``reference_names()``, and by the patterns in
    ``reference_ignored`` which others it has no use for. A published tensor that is one row of ours has a name and an
    index; with index ``None`` it has an axis of size 1 more. Nothing is copied unless everything fits.

    Args:
        net: a network with published weights, such as :py:class:`QGMIL`.
        state_dict: tensors by their published names, or a checkpoint that holds them under ``model``.

    Raises:
        ValueError: when the network has no published weights; when names are missing or unexpected, or shapes differ.
            The message lists all of them.

    Example:
        >>> from monai_mil_ext.networks.nets import QGMIL
        >>> net, other = (QGMIL(in_features=8, num_classes=1, hidden_size=8) for _ in range(2))
        >>> published = {name: other.state_dict()[ours] for name, ours in net.reference_names().items()}
        >>> load_reference_state_dict(net, published)
        >>> torch.equal(net.eval()(torch.ones(1, 5, 8)), other.eval()(torch.ones(1, 5, 8)))
        True
    """
    names_of = getattr(net, "reference_names", None)
    if names_of is None:
        raise ValueError(f"`net` must be a network with published weights, got {type(net).__name__}.")
    weights = net.state_dict()
    own = {name: _place(weights, ours) for name, ours in names_of().items()}
    inner = state_dict.get("model")
    if isinstance(inner, Mapping):
        state_dict = inner
    ignored = getattr(net, "reference_ignored", ())
    wrong = {
        "missing": [name for name in own if name not in state_dict],
        "unexpected": [n for n in state_dict if n not in own and not any(fnmatchcase(n, p) for p in ignored)],
        "of another shape": [
            f"{name} {tuple(state_dict[name].shape)} for {tuple(ours.shape)}"
            for name, ours in own.items()
            if name in state_dict and state_dict[name].shape != ours.shape
        ],
    }
    if any(wrong.values()):
        raise ValueError(_message(type(net).__name__, wrong))
    with torch.no_grad():
        for name, ours in own.items():
            ours.copy_(state_dict[name])


def _place(weights: Mapping[str, Tensor], ours: Union[str, Tuple[str, Optional[int]]]) -> Tensor:
    """The memory of one published tensor."""
    return weights[ours] if isinstance(ours, str) else weights[ours[0]][ours[1]]


def _message(net: str, wrong: Mapping[str, List[str]]) -> str:
    lists = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
    return "\n".join([f"`state_dict` must have the weights of {net}, got", *lists])
