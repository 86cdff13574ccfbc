"""Attention and transformers with smoothing over the ordered instances of a bag (Sm)."""

from typing import Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import ChainSmoother, SpectralLinear, attention_pool, masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.networks.nets.transformers.transmil import SequenceTransMIL
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["SmAP", "SmTP"]


class SmAP(BagNet):
    r"""SmAP, proposed in `Sm: enhanced localization in Multiple Instance Learning <https://arxiv.org/abs/2410.03276>`_.

    Given a bag X of ordered instances :math:`x_n`, SmAP is attention-based pooling with one smoothing operator:

    .. math::
        s_n = w^\top \tanh(V x_n + b) + c, \quad a = \operatorname{softmax}_n s_n, \quad
        \text{logits} = W_c \sum_n a_n x_n + b_c

    It smooths the instances before they are scored and pooled (``"early"``), the hidden layer (``"mid"``) or the scores
    (``"late"``); linear layers of the attention after the smoothing are divided by their spectral norm. Smoothing
    depends on the order of instances (``permutation_invariant`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        attention_size: size of the hidden layer of the attention.
        place: position of the smoothing operator, ``"early"``, ``"mid"`` or ``"late"``.
        smoother: module that takes values (B, N, E) and a mask; ``None`` means :py:class:`ChainSmoother`.

    Raises:
        ValueError: when a size is not positive, ``place`` is unknown, or the input has the wrong shape.

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
        self.smooth_instances = smooth if place == "early" else _NoSmoother()
        self.smooth_hidden = smooth if place == "mid" else _NoSmoother()
        self.smooth_scores = smooth if place == "late" else _NoSmoother()
        self.value = (SpectralLinear if place == "early" else nn.Linear)(in_features, attention_size)
        self.score = (nn.Linear if place == "late" else SpectralLinear)(attention_size, 1)
        self.classify = nn.Linear(in_features, num_classes)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h = self.smooth_instances(zero_out_padding(x, mask), mask)
        hidden = self.smooth_hidden(torch.tanh(self.value(h)), mask)
        scores = self.score_tap(self.smooth_scores(self.score(hidden), mask))
        attention = masked_softmax(scores, mask)
        embedding = attention_pool(attention, h).squeeze(1)
        return BagOutput(self.classify(embedding.to(self.classify.weight.dtype)), attention, scores, embedding)


class SmTP(SequenceTransMIL):
    r"""SmTP, proposed in `Sm: enhanced localization in Multiple Instance Learning <https://arxiv.org/abs/2410.03276>`_.

    Given a bag X of ordered instances, SmTP is :py:class:`SequenceTransMIL` with the output of each attention layer
    smoothed before it is added:

    .. math:: y \leftarrow y + \mathrm{Sm}(\mathrm{MHA}(\mathrm{LN}(y)))

    The class token is the first token of the chain, a neighbor of the first instance. Attention is that of the class
    token in the second layer and sums to less than one (``attention_is_distribution`` is False), and the order of
    instances matters (``permutation_invariant`` is False).

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

    def mix(self, attended: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Smooth the output of the first attention layer, see :py:class:`SequenceTransMIL`."""
        smooth: Tensor = self.smooth1(attended, mask)
        return smooth

    def read(self, attention: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Compute the smoothed output of the class token, see :py:class:`SequenceTransMIL`."""
        smooth: Tensor = self.smooth2(self.attend2(h, mask), mask)
        return smooth[:, 0]


class _NoSmoother(nn.Module):
    def forward(self, u: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        return u
