"""Transformers over a bag, with the neighbourhood of instances as their position: TransMIL and its exact form."""

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import ClassTokenAttention, NystromAttention, PositionConv
from monai_mil_ext.networks.layers import masked_softmax, pack, packed_places, unpack, zero_padding
from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["SequenceTransMIL", "TransMIL"]


class SequenceTransMIL(BagNet):
    r"""TransMIL with exact attention over the instances as a sequence.

    .. math::
        y \leftarrow y + \mathrm{MHA}(\mathrm{LN}(y)), \quad
        y_{1..N} \leftarrow y_{1..N} + \sum_{k \in \{3, 5, 7\}} \mathrm{conv}_k(y_{1..N}), \quad
        y \leftarrow y + \mathrm{MHA}(\mathrm{LN}(y)), \quad \text{logits} = W_c y_0 + b_c

    on the tokens :math:`y = [c; x_1, \dots, x_N]` with a class token c. Attention is that of the class token in the
    second layer, of each head, with its own column left out and not made up for: it sums to less than one
    (``attention_is_distribution`` is False), and leaves ``attention_tap`` for losses that want it so. The convolutions
    see the order of the instances (``permutation_invariant`` is False). Of the second layer only the class token is
    read, so it takes O(N F H); the first takes O(N² F) by fused attention and stores O(N F).

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
        """See :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        tokens_mask = None if mask is None else functional.pad(mask, [1, 0], value=True)
        token = self.class_token.to(x.dtype).expand(x.shape[0], 1, -1)
        y = torch.cat([token, zero_padding(x, mask)], 1)
        y = y + self.mix(self.attend1(self.norm1(y), tokens_mask), tokens_mask)
        y = torch.cat([y[:, :1], self._see_places(y[:, 1:], mask)], 1)
        h = self.norm2(y)
        scores = self.attend2.first_scores(h)
        attention = masked_softmax(scores, tokens_mask)
        embedding = y[:, 0] + self.read(attention, h, tokens_mask)
        scores, attention = self.score_tap(scores[:, 1:]), self.attention_tap(attention[:, 1:])
        return BagOutput(self.classify(embedding.to(self.classify.weight.dtype)), attention, scores, embedding)

    def mix(self, found: Tensor, mask: Optional[Tensor]) -> Tensor:
        """What is made of the output of the first attention (B, 1 + N, F) before it is added."""
        return found

    def read(self, attention: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """What the second layer adds to the class token, (B, F)."""
        return self.attend2.first_read(attention, h)

    def _see_places(self, y: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Instances (B, N, F) with the sum of convolutions over the real ones; a row of zeros stands for none."""
        places = None if mask is None else packed_places(mask)
        row = functional.pad(pack(zero_padding(y, mask), places), [0, 0, 0, 1])
        placed = self.position(row.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        return unpack(placed[:, : y.shape[1]], places)


class TransMIL(BagNet):
    r"""TransMIL as published: Nystrom attention over the instances as a square.

    .. math::
        h_n = \operatorname{ReLU}(W x_n + b), \quad y = [c; h_1, \dots, h_N, h_1, \dots, h_{S^2 - N}], \quad
        S = \lceil \sqrt N \rceil

        y \leftarrow y + \mathrm{Nys}(\mathrm{LN}(y)), \quad
        y_{1..S^2} \leftarrow y_{1..S^2} + \sum_{k \in \{7, 5, 3\}} \mathrm{conv}_{k \times k}(y_{1..S^2}), \quad
        y \leftarrow y + \mathrm{Nys}(\mathrm{LN}(y)), \quad \text{logits} = W_c \mathrm{LN}(y)_0 + b_c

    with :py:class:`NystromAttention`. Squares and landmarks are those of each bag, whatever it is padded to. Scores
    and attention are those of *exact* attention of the class token in the second layer, of each head, over the N
    instances: the product of three factors that the logits are made of can be negative. The convolutions see the order
    of the instances (``permutation_invariant`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a token.
        num_heads: number of heads, which divides E.
        num_landmarks: number of landmarks; ``None`` means E / 2.
        dropout: rate on the output of each layer of attention.

    Raises:
        ValueError: when a size is not positive, the heads do not divide E, the rate is not in [0, 1), or the input has
            the wrong shape.

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
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), got {dropout!r}.")
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
        """See :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        instances = x.shape[1]
        places = None if mask is None else packed_places(mask)
        count = torch.full([x.shape[0]], instances, device=x.device) if mask is None else mask.sum(1)
        side = count.clamp(min=1).float().sqrt().ceil().long()
        widest = max(2, math.ceil(instances**0.5))  # 2, not 1: an exporter takes a size of one for a constant
        tokens = torch.where(count > 0, side * side, 0) + 1

        h = pack(self.embed(zero_padding(x, mask)), places)
        y = _square(torch.cat([self.class_token.to(h.dtype).expand(x.shape[0], 1, -1), h], 1), count, tokens, widest)
        y = y + self.attend1(self.norm1(y), tokens)
        y = self._see_places(y, side, tokens, widest)
        normed = self.norm2(y)
        scores = self.score_tap(unpack(self.attend2.first_scores(normed)[:, 1 : instances + 1], places))
        embedding = self.norm((y + self.attend2(normed, tokens))[:, 0])
        return BagOutput(self.classify(embedding), masked_softmax(scores, mask), scores, embedding)

    def _see_places(self, y: Tensor, side: Tensor, tokens: Tensor, widest: int) -> Tensor:
        """Tokens (B, 1 + S S, E) with the sum of convolutions over each bag's own square, on one grid for all."""
        cells, place = torch.arange(widest * widest, device=y.device), side.unsqueeze(1)
        step = torch.arange(widest, device=y.device).expand(widest, widest)  # no remainder by a size: ONNX has none
        row, column = step.t().flatten(), step.flatten()
        inside = (row < place) & (column < place) & (tokens > 1).unsqueeze(1)
        grid = zero_padding(_rows(y, torch.where(inside, row * place + column + 1, 0)), inside)
        # contiguous: inductor fails to order the strides of a view with such sides
        grid = grid.transpose(1, 2).unflatten(2, [widest, widest]).contiguous()
        placed = self.position(grid).flatten(2).transpose(1, 2)
        own = cells < (tokens - 1).unsqueeze(1)
        back = torch.where(own, cells // place * widest + cells % place, 0)
        return torch.cat([y[:, :1], zero_padding(_rows(placed, back), own)], 1)


def _square(tokens: Tensor, count: Tensor, filled: Tensor, widest: int) -> Tensor:
    """Class token and instances (B, 1 + N, E), the first instances once more until each bag's square is full."""
    cells = torch.arange(widest * widest, device=tokens.device)
    own = cells < (filled - 1).unsqueeze(1)
    source = torch.where(own, cells % count.clamp(min=1).unsqueeze(1) + 1, 0)
    return torch.cat([tokens[:, :1], zero_padding(_rows(tokens, source), own)], 1)


def _rows(y: Tensor, index: Tensor) -> Tensor:
    return y.gather(1, index.unsqueeze(-1).expand(-1, -1, y.shape[2]))
