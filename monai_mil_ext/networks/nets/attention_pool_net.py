"""Base class of networks that pool the instances of a bag by attention."""

from abc import abstractmethod
from typing import Callable, Optional, Tuple

from torch import Tensor

from monai_mil_ext.networks.layers import attention_pool, masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding

from .bag_net import BagNet, BagOutput

__all__ = ["AttentionPoolNet"]


class AttentionPoolNet(BagNet):
    r"""Base class of networks that score each instance alone, pool by the softmax of the scores, and classify the sums.

    .. math:: z_s = \sum_n a_{ns} h_n, \quad a_{\cdot s} = \operatorname{softmax}_n s_s(x_n)

    Since :math:`h_n` and the scores depend on instance n alone, a bag of any size can be read in chunks, with a softmax
    that runs over them: :py:class:`monai_mil_ext.inferers.BagInferer` does so. A subclass sets ``in_features`` and
    implements :py:meth:`score_instances` and :py:meth:`classify_pooled`; it may override the other methods. One that
    overrides ``forward_bag`` or ``forward`` gets the whole bag.

    Example:
        >>> import torch
        >>> class MeanOfLogits(AttentionPoolNet):
        ...     in_features = 2
        ...     def score_instances(self, x):
        ...         return x, x.new_zeros(x.shape[:2] + (1,))
        ...     def classify_pooled(self, pooled):
        ...         return pooled.squeeze(1), pooled.squeeze(1)
        >>> MeanOfLogits()(torch.tensor([[[0.0, 4.0], [2.0, 8.0]]])).tolist()
        [[1.0, 6.0]]
    """

    in_features: int

    @abstractmethod
    def score_instances(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute the instances h (B, N, E) to pool and their scores (B, N, S) of instances (B, N, F)."""

    def instance_scorer(self) -> Callable[[Tensor], Tuple[Tensor, Tensor]]:
        """Return :py:meth:`score_instances` for many chunks of a bag, with what they share computed once."""
        return self.score_instances

    @abstractmethod
    def classify_pooled(self, pooled: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute logits (B, C) and the embedding of attention-weighted sums (B, S, E), in float32 or float64."""

    def tap_scores(self, scores: Tensor) -> Optional[Tensor]:
        """Return the scores of the output, which have passed the score tap."""
        tapped: Tensor = self.score_tap(scores)
        return tapped

    def challenge(self, scores: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Return the scores (B, N, S) that the softmax gets: in training possibly others, in evaluation the same."""
        return scores

    def pool(self, attention: Tensor, h: Tensor) -> Tensor:
        """Compute attention-weighted sums (B, S, E) of instances ``h`` (B, N, E)."""
        return attention_pool(attention, h)

    def summarize_attention(self, attention: Tensor) -> Tensor:
        """Return the attention (B, N, A) of the output from that of all scores (B, N, S)."""
        return attention

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h, scores = self.score_instances(zero_out_padding(x, mask))
        tapped = self.tap_scores(scores)
        attention = masked_softmax(self.challenge(scores if tapped is None else tapped, h, mask), mask)
        logits, embedding = self.classify_pooled(self.pool(attention, h))
        return BagOutput(logits, self.summarize_attention(attention), tapped, embedding)
