"""What every network here is: bags in, logits out."""

from abc import ABC, abstractmethod
from typing import Dict, NamedTuple, Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_bags, check_mask

__all__ = ["BagNet", "BagOutput", "WithBagOutput"]


class BagOutput(NamedTuple):
    """All that a network has to say of a batch of bags.

    Attributes:
        logits: (B, C).
        attention: (B, N, A), zero on padding, summing to one over the real instances.
        scores: (B, N, S), what leaves the score tap: before any softmax, finite but meaningless on padding.
        embedding: (B, E), what the classifier sees.
    """

    logits: Tensor
    attention: Optional[Tensor]
    scores: Optional[Tensor]
    embedding: Optional[Tensor]


class BagNet(nn.Module, ABC):
    """Base of the networks: a subclass writes :py:meth:`forward_bag`, and ``forward`` gives its logits.

    A subclass passes its scores (B, N, S) through ``self.score_tap``, where loss handlers hook in, and calls
    :py:meth:`check_input` first. It says by class attribute which of the common promises it does not keep, and why
    in one sentence of its docstring.

    Attributes:
        permutation_invariant: the order of instances changes nothing.
        attention_is_distribution: attention sums to one over the real instances.
        exports_dynamic_n: one exported program serves bags of every size.
        gives_scores: ``BagOutput.scores`` is never ``None``.
        logits_see_all_weights: no weight is there for a loss alone, so that DDP needs no ``find_unused_parameters``.
    """

    permutation_invariant = True
    attention_is_distribution = True
    exports_dynamic_n = True
    gives_scores = True
    logits_see_all_weights = True

    def __init__(self) -> None:
        super().__init__()
        self.score_tap = nn.Identity()

    @abstractmethod
    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Everything about bags (B, N, F); ``mask`` (B, N) is True for a real instance."""

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Logits (B, C) of bags (B, N, F); ``mask`` (B, N) is True for a real instance."""
        return self.forward_bag(x, mask).logits

    def check_input(self, x: Tensor, mask: Optional[Tensor], in_features: int) -> None:
        """Raise ``ValueError`` unless ``x`` is (B, N, ``in_features``) and ``mask`` Boolean (B, N) or ``None``."""
        if not torch.jit.is_scripting():  # TorchScript cannot compile the messages
            check_bags(x, in_features)
            if mask is not None:
                check_mask(mask, x)


class WithBagOutput(nn.Module):
    """Makes ``forward`` give all of :py:class:`BagOutput` as a dictionary, for engines and DDP: they see nothing else.

    Args:
        net: the network to ask; its weights stay its own.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> {name: tuple(part.shape) for name, part in WithBagOutput(ABMIL(8, 2))(torch.zeros(1, 5, 8)).items()}
        {'logits': (1, 2), 'attention': (1, 5, 1), 'scores': (1, 5, 1), 'embedding': (1, 8)}
    """

    def __init__(self, net: BagNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """The parts of the output that the network has, by name."""
        output = self.net.forward_bag(x, mask)
        return {name: part for name, part in output._asdict().items() if part is not None}
