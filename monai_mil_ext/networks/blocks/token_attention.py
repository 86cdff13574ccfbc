"""Attention of learned queries on a bag, at a cost that does not grow with the width of a projected instance."""

import math
from typing import Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import bag_pool, masked_softmax
from monai_mil_ext.utils import check_positive

__all__ = ["FoldedAttention", "PreNormTokens", "TokenAttention"]


class FoldedAttention(nn.Module):
    r"""Multi-head attention whose queries are parameters, computed without projecting a single instance.

    .. math::
        q_{ij} = W_q^{ij} t_i + b_q^{ij}, \quad
        s_{nij} = \frac{(W_k^{ij\top} q_{ij})^\top h_n + q_{ij}^\top b_k^{ij}}{\sqrt{d}}, \quad
        o_i = W_o^i \big[W_v^{ij} \sum_n a_{nij} h_n + b_v^{ij}\big]_j + b_o^i

    of query i and head j. This is ordinary attention with its products taken in another order: the query, which no
    instance changes, is multiplied into the keys, and values are pooled before they are projected, because the weights
    sum to one. Of N instances it takes 2 N H T E multiplications for 2 N T E\ :sup:`2`, and stores N (E + H T) numbers.

    Args:
        size: E, of an instance and of a query.
        num_heads: H, which divides E.
        num_sets: 1, or as many sets of weights as there are queries.

    Raises:
        ValueError: when a size is not positive or the heads do not divide ``size``.

    Example:
        >>> attend, queries, h = FoldedAttention(8, num_heads=2), torch.randn(3, 8), torch.randn(1, 5, 8)
        >>> scores = attend.score(queries, h)
        >>> scores.shape, attend.read(scores.softmax(1), h).shape
        (torch.Size([1, 5, 6]), torch.Size([1, 3, 8]))
    """

    def __init__(self, size: int, num_heads: int, num_sets: int = 1) -> None:
        super().__init__()
        check_positive(size=size, num_heads=num_heads, num_sets=num_sets)
        if size % num_heads:
            raise ValueError(f"`size` must be a multiple of the {num_heads} heads, got {size}.")
        self.size = size
        self.num_heads = num_heads
        self.query_weight, self.query_bias = _linear(num_sets, size)
        self.key_weight, self.key_bias = _linear(num_sets, size)
        self.value_weight, self.value_bias = _linear(num_sets, size)
        self.out_weight, self.out_bias = _linear(num_sets, size)

    def score(self, queries: Tensor, h: Tensor) -> Tensor:
        """Scores (B, N, H T), before any softmax and the head slower, of queries (T, E) on instances (B, N, E)."""
        head_size = self.size // self.num_heads
        query = (self.query_weight @ queries.unsqueeze(-1)).squeeze(-1) + self.query_bias
        query = query.view(-1, self.num_heads, 1, head_size) / math.sqrt(head_size)  # (T, H, 1, d)
        folded = query @ self.key_weight.view(-1, self.num_heads, head_size, self.size)
        offset = (query.squeeze(2) * self.key_bias.view(-1, self.num_heads, head_size)).sum(-1)
        weight = folded.squeeze(2).transpose(0, 1).reshape(-1, self.size)
        return nn.functional.linear(h, weight, offset.t().reshape(-1))

    def read(self, attention: Tensor, h: Tensor) -> Tensor:
        """What T queries read (B, T, E) from instances (B, N, E) with attention (B, N, H T), the head slower."""
        head_size = self.size // self.num_heads
        weight = self.value_weight.view(-1, self.num_heads, head_size, self.size).transpose(2, 3)
        # (B, E, H T), not its transpose: the gradient of the attention then needs no copy in another order
        pooled = bag_pool(h, attention).to(weight.dtype).unflatten(2, [self.num_heads, -1])
        values = pooled.permute(3, 2, 0, 1) @ weight  # (T, H, B, d)
        values = values.transpose(1, 2).flatten(2) + self.value_bias.unsqueeze(1)
        return (values @ self.out_weight.transpose(1, 2) + self.out_bias.unsqueeze(1)).transpose(0, 1)


class TokenAttention(nn.Module):
    r"""Learned queries read from a bag, each with weights of its own: :math:`f_i = \mathrm{LN}_i(\mathrm{drop}(o_i))`.

    Nothing is added to what was read: no residual, no perceptron.

    Args:
        size: E, of an instance and of a query.
        num_heads: H, which divides E.
        num_queries: T.
        dropout: rate on what was read.

    Raises:
        ValueError: when a size is not positive or the heads do not divide ``size``.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> TokenAttention(8, num_heads=2, num_queries=3)(torch.randn(3, 8), torch.randn(2, 5, 8)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, size: int, num_heads: int, num_queries: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(num_queries=num_queries)
        self.attend = FoldedAttention(size, num_heads, num_queries)
        self.drop = nn.Dropout(dropout)
        self.norm_weight = nn.Parameter(torch.ones(num_queries, size))
        self.norm_bias = nn.Parameter(torch.zeros(num_queries, size))

    def keys(self, h: Tensor) -> Tensor:
        """What is scored and read of instances (B, N, E): themselves."""
        return h

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores (B, N, H T) of queries (T, E)."""
        return self.attend.score(queries, keys)

    def read(self, queries: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
        """What the queries have read (B, T, E) with attention (B, N, H T)."""
        read = self.drop(self.attend.read(attention, keys))
        return nn.functional.layer_norm(read, read.shape[-1:], eps=1e-6) * self.norm_weight + self.norm_bias

    def forward(self, queries: Tensor, h: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """What queries (T, E) have read (B, T, E) from instances (B, N, E); ``mask`` (B, N) is True for a real one."""
        keys = self.keys(h)
        return self.read(queries, masked_softmax(self.score(queries, keys), mask), keys)


class PreNormTokens(nn.Module):
    r"""Learned queries read from a bag through one pre-norm encoder layer, whose weights they share.

    .. math::
        f = t + \mathrm{MHA}(\mathrm{LN}_1 t, \mathrm{LN}_1 h), \quad
        f \leftarrow f + W_2 \operatorname{GELU}(W_1 \mathrm{LN}_2 f + b_1) + b_2

    Args:
        size: E, of an instance and of a query.
        num_heads: H, which divides E.
        dropout: rate behind the attention and behind the perceptron.

    Raises:
        ValueError: when a size is not positive or the heads do not divide ``size``.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658, figure 2.

    Example:
        >>> PreNormTokens(8, num_heads=2)(torch.randn(3, 8), torch.randn(2, 5, 8)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, size: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=1e-6)
        self.attend = FoldedAttention(size, num_heads)
        self.norm2 = nn.LayerNorm(size, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size), nn.Dropout(dropout))
        self.drop = nn.Dropout(dropout)

    def keys(self, h: Tensor) -> Tensor:
        """What is scored and read of instances (B, N, E): normalised ones."""
        normed: Tensor = self.norm1(h)
        return normed

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores (B, N, H T) of queries (T, E)."""
        return self.attend.score(self.norm1(queries), keys)

    def read(self, queries: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
        """What the queries have read (B, T, E) with attention (B, N, H T)."""
        f = queries + self.drop(self.attend.read(attention, keys))
        read: Tensor = f + self.mlp(self.norm2(f))
        return read

    def forward(self, queries: Tensor, h: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """What queries (T, E) have read (B, T, E) from instances (B, N, E); ``mask`` (B, N) is True for a real one."""
        keys = self.keys(h)
        return self.read(queries, masked_softmax(self.score(queries, keys), mask), keys)


def _linear(num_sets: int, size: int) -> "tuple[nn.Parameter, nn.Parameter]":
    """Weights (num_sets, E, E) and biases (num_sets, E), drawn as those of ``nn.Linear`` are."""
    bound = 1 / math.sqrt(size)
    weight, bias = torch.empty(num_sets, size, size), torch.empty(num_sets, size)
    return nn.Parameter(weight.uniform_(-bound, bound)), nn.Parameter(bias.uniform_(-bound, bound))
