"""Base class of all MIL networks and their output."""

from abc import ABC, abstractmethod
from typing import Any, Dict, NamedTuple, Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_bags, check_mask

from .constructor_arguments import describe_call

__all__ = ["BagNet", "BagOutput", "BagOutputWrapper"]

PROPERTIES = (
    "permutation_invariant",
    "attention_is_distribution",
    "exports_dynamic_n",
    "gives_scores",
    "logits_see_all_weights",
    "is_traceable",
)
AUTOCAST = {torch.float16, torch.bfloat16, torch.float32}  # dtypes that autocast converts


class BagOutput(NamedTuple):
    """Output of a network for a batch of bags.

    Attributes:
        logits: logits (B, C).
        attention: attention (B, N, A), zero at padding, summing to one over the valid instances.
        scores: scores (B, N, S) at the score tap, before any softmax; finite but meaningless at padding.
        embedding: input (B, E) of the classifier.
    """

    logits: Tensor
    attention: Optional[Tensor]
    scores: Optional[Tensor]
    embedding: Optional[Tensor]


class BagNet(nn.Module, ABC):
    """Base class of all MIL networks: a subclass implements :py:meth:`forward_bag`, and ``forward`` returns its logits.

    A subclass first calls :py:meth:`check_input`, and passes its scores (B, N, S) through ``self.score_tap``, where
    loss handlers hook in. If it lacks one of the properties below, it sets the class attribute to False and gives the
    reason in its docstring.

    Instances must have the dtype of the weights. In float32, features up to 1e15 give finite results; beyond about 1e19
    the squares in layer normalization overflow.

    Attributes:
        permutation_invariant: whether the output does not depend on the order of instances.
        attention_is_distribution: whether attention sums to one over the valid instances.
        exports_dynamic_n: whether one exported program serves bags of any size.
        gives_scores: whether ``BagOutput.scores`` is never ``None``.
        logits_see_all_weights: whether the logits depend on all weights, so that DDP does not need
            ``find_unused_parameters``.
        is_traceable: whether ``torch.compile`` traces the network as one graph and ``torch.func.vmap`` maps it.
        takes_raw_features: whether the network must get features as they are, not standardized, such as one with
            weights of another training; see :py:meth:`monai_mil_ext.data.FeatureStatistics.for_network`.
    """

    permutation_invariant = True
    attention_is_distribution = True
    exports_dynamic_n = True
    gives_scores = True
    logits_see_all_weights = True
    is_traceable = True
    takes_raw_features = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Create the network and note the arguments of its constructor, for the record of a trained model."""
        net = super().__new__(cls)
        object.__setattr__(net, "_constructor_arguments", describe_call(cls, args, kwargs))
        return net

    def __init__(self) -> None:
        super().__init__()
        self.score_tap = nn.Identity()

    def take_properties(self, *nets: "BagNet") -> None:
        """Take over the properties of the networks that this one consists of: those that all of them have."""
        for name in PROPERTIES:
            setattr(self, name, all(getattr(net, name) for net in nets))

    @abstractmethod
    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs for bags (B, N, F); ``mask`` (B, N) is True for a valid instance."""

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Compute logits (B, C) for bags (B, N, F); ``mask`` (B, N) is True for a valid instance."""
        return self.forward_bag(x, mask).logits

    def check_input(self, x: Tensor, mask: Optional[Tensor], in_features: int) -> None:
        """Raise ``ValueError`` unless ``x`` is (B, N, ``in_features``) and ``mask`` Boolean (B, N) or ``None``.

        ``x`` must also have the dtype of the weights, unless autocast converts both.
        """
        if not torch.jit.is_scripting():  # TorchScript cannot compile the error messages
            check_bags(x, in_features)
            check_dtype(x, self)
            if mask is not None:
                check_mask(mask, x)


class BagOutputWrapper(nn.Module):
    """Wrapper whose ``forward`` returns :py:class:`BagOutput` as a dictionary, for engines and DDP, which call only it.

    Args:
        net: network to wrap; the weights are shared.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> {name: tuple(value.shape) for name, value in BagOutputWrapper(ABMIL(8, 2))(torch.zeros(1, 5, 8)).items()}
        {'logits': (1, 2), 'attention': (1, 5, 1), 'scores': (1, 5, 1), 'embedding': (1, 8)}
    """

    def __init__(self, net: BagNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Compute the outputs for bags (B, N, F) by name, without those that the network does not have."""
        output = self.net.forward_bag(x, mask)
        return {name: value for name, value in output._asdict().items() if value is not None}


def check_dtype(x: Tensor, net: nn.Module) -> None:
    """Raise ``ValueError`` unless instances ``x`` have the dtype of a weight of ``net``, or autocast converts both.

    A network without weights takes any floating-point dtype.

    Example:
        >>> check_dtype(torch.zeros(1, 5, 2).half(), nn.Linear(2, 1))
        Traceback (most recent call last):
        ...
        ValueError: `x` must be of dtype torch.float32, like the weights, got torch.float16.
    """
    dtypes = [weight.dtype for weight in net.parameters() if weight.is_floating_point()]
    if x.dtype in dtypes or (not dtypes and x.is_floating_point()):
        return
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if autocast and x.dtype in AUTOCAST and not AUTOCAST.isdisjoint(dtypes):
        return
    rule = f"of dtype {dtypes[0]}, like the weights" if dtypes else "floating point"
    raise ValueError(f"`x` must be {rule}, got {x.dtype}.")
