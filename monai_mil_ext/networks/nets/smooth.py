"""Attention and transformers that smooth over the ordered instances of a bag."""

from typing import Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import ChainSmoother, SpectralLinear, bag_pool, masked_softmax, zero_padding
from monai_mil_ext.utils import check_choice, check_positive

from .bag_net import BagNet, BagOutput
from .transmil import SequenceTransMIL

__all__ = ["SmAP", "SmTP"]


class SmAP(BagNet):
    r"""Attention-based pooling with one smoothing operator: ABMIL for instances that have neighbours.

    .. math::
        s_n = w^\top \tanh(V x_n + b) + c, \quad a = \operatorname{softmax}_n s_n, \quad
        \text{logits} = W_c \sum_n a_n x_n + b_c

    It smooths the instances before they are scored and pooled (``"early"``), the hidden layer (``"mid"``) or the scores
    (``"late"``); linear layers that score what was smoothed are divided by their spectral norm. The chain sees the
    order of the instances (``permutation_invariant`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        attention_size: size of the hidden layer that scores.
        place: ``"early"``, ``"mid"`` or ``"late"``.
        smoother: takes values (B, N, E) and a mask; ``None`` means :py:class:`ChainSmoother`.

    Raises:
        ValueError: when a size is not positive, there is no such place, or the input has the wrong shape.

    References:
        Castro-Macias et al., "Sm: enhanced localization in Multiple Instance Learning for medical imaging
        classification", arXiv:2410.03276.

    Example:
        >>> SmAP(in_features=8, num_classes=2).forward_bag(torch.rand(1, 5, 8)).attention.shape
        torch.Size([1, 5, 1])
    """

    permutation_invariant = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        attention_size: int = 128,
        place: str = "early",
        smoother: Optional[nn.Module] = None,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, attention_size=attention_size)
        check_choice("place", place, ("early", "mid", "late"))
        smooth = smoother or ChainSmoother()
        self.in_features = in_features
        self.smooth_instances = smooth if place == "early" else _Unsmoothed()
        self.smooth_hidden = smooth if place == "mid" else _Unsmoothed()
        self.smooth_scores = smooth if place == "late" else _Unsmoothed()
        self.value = (SpectralLinear if place == "early" else nn.Linear)(in_features, attention_size)
        self.score = (nn.Linear if place == "late" else SpectralLinear)(attention_size, 1)
        self.classify = nn.Linear(in_features, num_classes)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """See :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h = self.smooth_instances(zero_padding(x, mask), mask)
        hidden = self.smooth_hidden(torch.tanh(self.value(h)), mask)
        scores = self.score_tap(self.smooth_scores(self.score(hidden), mask))
        attention = masked_softmax(scores, mask)
        embedding = bag_pool(attention, h).squeeze(1)
        return BagOutput(self.classify(embedding.to(self.classify.weight.dtype)), attention, scores, embedding)


class SmTP(SequenceTransMIL):
    r"""TransMIL as a sequence, with the output of each layer of attention smoothed before it is added.

    .. math:: y \leftarrow y + \mathrm{Sm}(\mathrm{MHA}(\mathrm{LN}(y)))

    The class token is the first of the chain, a neighbour of the first instance. Otherwise it is
    :py:class:`SequenceTransMIL`: attention is the class token's in the second layer and sums to less than one
    (``attention_is_distribution`` is False), and order matters (``permutation_invariant`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        num_heads: number H of heads, which divides F.

    Raises:
        ValueError: when a size is not positive, H does not divide F, or the input has the wrong shape.

    References:
        Castro-Macias et al., "Sm: enhanced localization in Multiple Instance Learning for medical imaging
        classification", arXiv:2410.03276.

    Example:
        >>> SmTP(in_features=16, num_classes=2)(torch.rand(1, 5, 16)).shape
        torch.Size([1, 2])
    """

    def __init__(self, in_features: int, num_classes: int, num_heads: int = 8) -> None:
        super().__init__(in_features, num_classes, num_heads)
        self.smooth1 = ChainSmoother()
        self.smooth2 = ChainSmoother()

    def mix(self, found: Tensor, mask: Optional[Tensor]) -> Tensor:
        """See :py:class:`SequenceTransMIL`."""
        smooth: Tensor = self.smooth1(found, mask)
        return smooth

    def read(self, attention: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """See :py:class:`SequenceTransMIL`."""
        smooth: Tensor = self.smooth2(self.attend2(h, mask), mask)
        return smooth[:, 0]


class _Unsmoothed(nn.Module):
    def forward(self, u: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        return u
