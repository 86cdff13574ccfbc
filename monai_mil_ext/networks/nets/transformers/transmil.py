"""TransMIL, a transformer over the instances of a bag, and its form with exact attention."""

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import ClassTokenAttention, NystromAttention, PositionConv
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_positive

__all__ = ["SequenceTransMIL", "TransMIL"]


class SequenceTransMIL(BagNet):
    r"""TransMIL with exact attention over a sequence, as in `Normal Guidance <https://arxiv.org/abs/2605.27306>`_.

    Given a bag X of ordered instances :math:`x_n`, two transformer layers with a convolutional position encoding
    between them act on the instances and a class token, which is classified:

    .. math::
        y \leftarrow y + \mathrm{MHA}(\mathrm{LN}(y)), \quad
        y_{1..N} \leftarrow y_{1..N} + \sum_{k \in \{3, 5, 7\}} \mathrm{conv}_k(y_{1..N}), \quad
        y \leftarrow y + \mathrm{MHA}(\mathrm{LN}(y)), \quad \text{logits} = W_c y_0 + b_c

    on the tokens :math:`y = [c; x_1, \dots, x_N]` with a class token c. Attention is that of the class token in the
    second layer, for each head, without the weight on the class token itself: it sums to less than one
    (``attention_is_distribution`` is False). It passes through ``attention_tap`` for losses on such attention. The
    convolutions depend on the order of instances (``permutation_invariant`` is False). The second layer computes the
    class token alone, in O(N F H); the first takes O(N² F) by fused attention and stores O(N F).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        num_heads: number H of heads, which divides F.

    Raises:
        ValueError: when a size is not positive, H does not divide F, or the input has the wrong shape.

    References:
        Shao et al., "TransMIL", arXiv:2106.00908; this form: Harvey, Loevlie, Hughes, "Normal Guidance is what
        Attention Needs", arXiv:2605.27306.

    Example:
        >>> net = SequenceTransMIL(in_features=16, num_classes=2)
        >>> net.forward_bag(torch.rand(1, 5, 16)).attention.shape
        torch.Size([1, 5, 8])
    """

    permutation_invariant = False
    attention_is_distribution = False

    def __init__(self, in_features: int, num_classes: int, num_heads: int = 8) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, num_heads=num_heads)
        self.in_features = in_features
        self.class_token = nn.Parameter(torch.randn(in_features))
        self.norm1 = nn.LayerNorm(in_features)
        self.attend1 = ClassTokenAttention(in_features, num_heads)
        self.position = PositionConv(in_features, [(1, 3), (1, 5), (1, 7)])
        self.norm2 = nn.LayerNorm(in_features)
        self.attend2 = ClassTokenAttention(in_features, num_heads)
        self.classify = nn.Linear(in_features, num_classes)
        self.attention_tap = nn.Identity()

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        token_mask = None if mask is None else functional.pad(mask, [1, 0], value=True)
        token = self.class_token.to(x.dtype).expand(x.shape[0], 1, -1)
        y = torch.cat([token, zero_out_padding(x, mask)], 1)
        y = y + self.mix(self.attend1(self.norm1(y), token_mask), token_mask)
        y = torch.cat([y[:, :1], self._encode_positions(y[:, 1:], mask)], 1)
        h = self.norm2(y)
        scores = self.attend2.cls_scores(h)
        attention = masked_softmax(scores, token_mask)
        embedding = y[:, 0] + self.read(attention, h, token_mask)
        scores, attention = self.score_tap(scores[:, 1:]), self.attention_tap(attention[:, 1:])
        return BagOutput(self.classify(embedding.to(self.classify.weight.dtype)), attention, scores, embedding)

    def mix(self, attended: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Transform the output of the first attention layer (B, 1 + N, F) before it is added; here, return it."""
        return attended

    def read(self, attention: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Compute the output of the second attention layer for the class token, (B, F)."""
        return self.attend2.cls_output(attention, h)

    def _encode_positions(self, y: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Add the convolutions over the valid instances to instances (B, N, F)."""
        order = None if mask is None else compact_order(mask)
        row = functional.pad(compact(zero_out_padding(y, mask), order), [0, 0, 0, 1])  # one more row for the case N = 0
        encoded = self.position(row.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        return uncompact(encoded[:, : y.shape[1]], order)


class TransMIL(BagNet):
    r"""TransMIL, proposed in `TransMIL: Transformer based Correlated MIL <https://arxiv.org/abs/2106.00908>`_.

    Given a bag X of instances :math:`x_n`, TransMIL arranges the projected instances in a square, applies two Nystrom
    attention layers with a convolutional position encoding between them, and classifies the class token:

    .. math::
        h_n = \operatorname{ReLU}(W x_n + b), \quad y = [c; h_1, \dots, h_N, h_1, \dots, h_{S^2 - N}], \quad
        S = \lceil \sqrt N \rceil

        y \leftarrow y + \mathrm{Nys}(\mathrm{LN}(y)), \quad
        y_{1..S^2} \leftarrow y_{1..S^2} + \sum_{k \in \{7, 5, 3\}} \mathrm{conv}_{k \times k}(y_{1..S^2}), \quad
        y \leftarrow y + \mathrm{Nys}(\mathrm{LN}(y)), \quad \text{logits} = W_c \mathrm{LN}(y)_0 + b_c

    with :py:class:`NystromAttention`. Squares and landmarks depend on the size of each bag, not on its padding. Scores
    and attention are those of *exact* attention of the class token in the second layer, for each head, over the N
    instances, since the product of three factors behind the logits can be negative. The convolutions depend on the
    order of instances (``permutation_invariant`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a token.
        num_heads: number of heads, which divides E.
        num_landmarks: number of landmarks; ``None`` means E / 2.
        dropout: dropout rate of the output of each attention layer.

    Raises:
        ValueError: when a size is not positive, the number of heads does not divide E, the rate is not in [0, 1), or
            the input has the wrong shape.

    References:
        Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image
        Classification", arXiv:2106.00908.

    Example:
        >>> net = TransMIL(in_features=16, num_classes=2, hidden_size=32).eval()
        >>> x, mask = torch.rand(2, 5, 16), torch.arange(5) < torch.tensor([[5], [2]])
        >>> torch.allclose(net(x, mask)[1:], net(x[1:, :2]), atol=1e-5)
        True
    """

    permutation_invariant = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 512,
        num_heads: int = 8,
        num_landmarks: Optional[int] = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=hidden_size)

        landmarks = max(1, hidden_size // 2) if num_landmarks is None else num_landmarks
        self.in_features = in_features
        self.class_token = nn.Parameter(torch.randn(hidden_size))
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_size), nn.ReLU())
        self.norm1 = nn.LayerNorm(hidden_size)
        self.attend1 = NystromAttention(hidden_size, num_heads, landmarks, dropout)
        self.position = PositionConv(hidden_size, [(7, 7), (5, 5), (3, 3)])
        self.norm2 = nn.LayerNorm(hidden_size)
        self.attend2 = NystromAttention(hidden_size, num_heads, landmarks, dropout)
        self.norm = nn.LayerNorm(hidden_size)
        self.classify = nn.Linear(hidden_size, num_classes)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        instances = x.shape[1]
        order = None if mask is None else compact_order(mask)
        count = torch.full([x.shape[0]], instances, device=x.device) if mask is None else mask.sum(1)
        side = count.clamp(min=1).float().sqrt().ceil().long()
        max_side = max(2, math.ceil(instances**0.5))  # 2, not 1: exporters treat a size of one as a constant
        num_tokens = torch.where(count > 0, side * side, 0) + 1

        h = compact(self.embed(zero_out_padding(x, mask)), order)
        y = torch.cat([self.class_token.to(h.dtype).expand(x.shape[0], 1, -1), h], 1)
        y = _fill_squares(y, count, num_tokens, max_side)
        y = y + self.attend1(self.norm1(y), num_tokens)
        y = self._encode_positions(y, side, num_tokens, max_side)
        normed = self.norm2(y)
        scores = self.score_tap(uncompact(self.attend2.cls_scores(normed)[:, 1 : instances + 1], order))
        embedding = self.norm((y + self.attend2(normed, num_tokens))[:, 0])
        return BagOutput(self.classify(embedding), masked_softmax(scores, mask), scores, embedding)

    def _encode_positions(self, y: Tensor, side: Tensor, num_tokens: Tensor, max_side: int) -> Tensor:
        """Add the convolutions over the square of each bag to tokens (B, 1 + S S, E), on a common grid for all bags."""
        cells, side = torch.arange(max_side * max_side, device=y.device), side.unsqueeze(1)
        step = torch.arange(max_side, device=y.device).expand(max_side, max_side)  # ONNX has no modulo by a size
        row, column = step.t().flatten(), step.flatten()
        grid_mask = (row < side) & (column < side) & (num_tokens > 1).unsqueeze(1)
        grid = zero_out_padding(_gather(y, torch.where(grid_mask, row * side + column + 1, 0)), grid_mask)
        # contiguous, since inductor fails to order the strides of such a view
        grid = grid.transpose(1, 2).unflatten(2, [max_side, max_side]).contiguous()
        encoded = self.position(grid).flatten(2).transpose(1, 2)
        mask = cells < (num_tokens - 1).unsqueeze(1)
        index = torch.where(mask, cells // side * max_side + cells % side, 0)
        return torch.cat([y[:, :1], zero_out_padding(_gather(encoded, index), mask)], 1)


def _fill_squares(tokens: Tensor, count: Tensor, num_tokens: Tensor, max_side: int) -> Tensor:
    """Append the first instances to class token and instances (B, 1 + N, E) until the square of each bag is full."""
    cells = torch.arange(max_side * max_side, device=tokens.device)
    mask = cells < (num_tokens - 1).unsqueeze(1)
    index = torch.where(mask, cells % count.clamp(min=1).unsqueeze(1) + 1, 0)
    return torch.cat([tokens[:, :1], zero_out_padding(_gather(tokens, index), mask)], 1)


def _gather(y: Tensor, index: Tensor) -> Tensor:
    return y.gather(1, index.unsqueeze(-1).expand(-1, -1, y.shape[2]))
