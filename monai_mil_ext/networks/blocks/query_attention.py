"""Attention of learned queries to the instances of a bag, without projecting the instances."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import attention_pool, masked_softmax
from monai_mil_ext.utils import check_positive

__all__ = ["AbsorbedAttention", "PreNormQueryAttention", "QueryAttention"]


class AbsorbedAttention(nn.Module):
    r"""Multi-head attention whose queries do not depend on the instances, computed without projecting instances.

    .. math::
        q_{ij} = W_q^{ij} t_i + b_q^{ij}, \quad
        s_{nij} = \frac{(W_k^{ij\top} q_{ij})^\top h_n + q_{ij}^\top b_k^{ij}}{\sqrt{d}}, \quad
        o_i = W_o^i \big[W_v^{ij} \sum_n a_{nij} h_n + b_v^{ij}\big]_j + b_o^i

    for query i and head j. This is ordinary attention with its products in another order: the query, which is the same
    for all instances, is absorbed into the key weights, and instances are pooled before they are projected to values,
    since the weights sum to one. For N instances it takes 2 N H T E multiplications instead of 2 N T E\ :sup:`2`, and
    stores N (E + H T) numbers.

    Args:
        size: size E of an instance and of a query.
        num_heads: number H of heads, which divides E.
        num_sets: number of sets of weights: 1, or the number of queries.

    Raises:
        ValueError: when a size is not positive or the number of heads does not divide ``size``.

    Example:
        >>> attend, queries, h = AbsorbedAttention(8, num_heads=2), torch.randn(3, 8), torch.randn(1, 5, 8)
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
        self.query_weight, self.query_bias = _linear_parameters(num_sets, size)
        self.key_weight, self.key_bias = _linear_parameters(num_sets, size)
        self.value_weight, self.value_bias = _linear_parameters(num_sets, size)
        self.out_weight, self.out_bias = _linear_parameters(num_sets, size)

    def score(self, queries: Tensor, h: Tensor) -> Tensor:
        """Compute scores (B, N, H T), head-major and before any softmax, of queries (T, E) and instances (B, N, E)."""
        weight, offset = self.absorb(queries)
        return nn.functional.linear(h, weight, offset)

    def absorb(self, queries: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute the weight (H T, E) and the offset (H T) of the scores, which are linear in the instances."""
        head_size = self.size // self.num_heads
        query = (self.query_weight @ queries.unsqueeze(-1)).squeeze(-1) + self.query_bias
        query = query.view(-1, self.num_heads, 1, head_size) / math.sqrt(head_size)  # (T, H, 1, d)
        absorbed = query @ self.key_weight.view(-1, self.num_heads, head_size, self.size)
        offset = (query.squeeze(2) * self.key_bias.view(-1, self.num_heads, head_size)).sum(-1)
        weight = absorbed.squeeze(2).transpose(0, 1).reshape(-1, self.size)
        return weight, offset.t().reshape(-1)

    def pool(self, attention: Tensor, h: Tensor) -> Tensor:
        """Compute sums (B, H T, E) of instances (B, N, E) for attention (B, N, H T), head-major."""
        # pooled to (B, E, H T) and then transposed, so that the gradient of the attention needs no transposed copy
        return attention_pool(h, attention).transpose(1, 2)

    def read(self, attention: Tensor, h: Tensor) -> Tensor:
        """Compute the outputs (B, T, E) of T queries from instances (B, N, E) and attention (B, N, H T), head-major."""
        return self.project(self.pool(attention, h))

    def project(self, pooled: Tensor) -> Tensor:
        """Compute the outputs (B, T, E) of T queries from pooled instances (B, H T, E), head-major."""
        head_size = self.size // self.num_heads
        weight = self.value_weight.view(-1, self.num_heads, head_size, self.size).transpose(2, 3)
        heads = pooled.to(weight.dtype).unflatten(1, [self.num_heads, -1])
        values = heads.permute(2, 1, 0, 3) @ weight  # (T, H, B, d)
        values = values.transpose(1, 2).flatten(2) + self.value_bias.unsqueeze(1)
        return (values @ self.out_weight.transpose(1, 2) + self.out_bias.unsqueeze(1)).transpose(0, 1)


class QueryAttention(nn.Module):
    r"""Attention of learned queries with separate weights for each: :math:`f_i = \mathrm{LN}_i(\mathrm{drop}(o_i))`.

    There is no residual connection and no feed-forward network.

    Args:
        size: size E of an instance and of a query.
        num_heads: number H of heads, which divides E.
        num_queries: number T of queries.
        dropout: dropout rate of the outputs.

    Raises:
        ValueError: when a size is not positive or the number of heads does not divide ``size``.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> QueryAttention(8, num_heads=2, num_queries=3)(torch.randn(3, 8), torch.randn(2, 5, 8)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, size: int, num_heads: int, num_queries: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(num_queries=num_queries)
        self.attend = AbsorbedAttention(size, num_heads, num_queries)
        self.drop = nn.Dropout(dropout)
        self.norm_weight = nn.Parameter(torch.ones(num_queries, size))
        self.norm_bias = nn.Parameter(torch.zeros(num_queries, size))

    def keys(self, h: Tensor) -> Tensor:
        """Return the keys of instances (B, N, E), here the instances themselves."""
        return h

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute scores (B, N, H T) of queries (T, E)."""
        return self.attend.score(queries, keys)

    def absorb(self, queries: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute weight and offset of the scores, see :py:class:`AbsorbedAttention`."""
        return self.attend.absorb(queries)

    def read(self, queries: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
        """Compute the outputs (B, T, E) of the queries from attention (B, N, H T)."""
        return self.read_pooled(queries, self.attend.pool(attention, keys))

    def read_pooled(self, queries: Tensor, pooled: Tensor) -> Tensor:
        """Compute the outputs (B, T, E) of the queries from pooled keys (B, H T, E)."""
        output = self.drop(self.attend.project(pooled))
        return nn.functional.layer_norm(output, output.shape[-1:], eps=1e-6) * self.norm_weight + self.norm_bias

    def forward(self, queries: Tensor, h: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Compute outputs (B, T, E) of queries (T, E) from instances (B, N, E); ``mask`` (B, N) is True if valid."""
        keys = self.keys(h)
        return self.read(queries, masked_softmax(self.score(queries, keys), mask), keys)


class PreNormQueryAttention(nn.Module):
    r"""Attention of learned queries in one pre-norm transformer layer, whose weights the queries share.

    .. math::
        f = t + \mathrm{MHA}(\mathrm{LN}_1 t, \mathrm{LN}_1 h), \quad
        f \leftarrow f + W_2 \operatorname{GELU}(W_1 \mathrm{LN}_2 f + b_1) + b_2

    Args:
        size: size E of an instance and of a query.
        num_heads: number H of heads, which divides E.
        dropout: dropout rate after the attention and after the feed-forward network.

    Raises:
        ValueError: when a size is not positive or the number of heads does not divide ``size``.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658, figure 2.

    Example:
        >>> PreNormQueryAttention(8, num_heads=2)(torch.randn(3, 8), torch.randn(2, 5, 8)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, size: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=1e-6)
        self.attend = AbsorbedAttention(size, num_heads)
        self.norm2 = nn.LayerNorm(size, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size), nn.Dropout(dropout))
        self.drop = nn.Dropout(dropout)

    def keys(self, h: Tensor) -> Tensor:
        """Return the keys of instances (B, N, E), here the normalized instances."""
        normed: Tensor = self.norm1(h)
        return normed

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute scores (B, N, H T) of queries (T, E)."""
        return self.attend.score(self.norm1(queries), keys)

    def absorb(self, queries: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute weight and offset of the scores, see :py:class:`AbsorbedAttention`."""
        return self.attend.absorb(self.norm1(queries))

    def read(self, queries: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
        """Compute the outputs (B, T, E) of the queries from attention (B, N, H T)."""
        return self.read_pooled(queries, self.attend.pool(attention, keys))

    def read_pooled(self, queries: Tensor, pooled: Tensor) -> Tensor:
        """Compute the outputs (B, T, E) of the queries from pooled keys (B, H T, E)."""
        f = queries + self.drop(self.attend.project(pooled))
        output: Tensor = f + self.mlp(self.norm2(f))
        return output

    def forward(self, queries: Tensor, h: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Compute outputs (B, T, E) of queries (T, E) from instances (B, N, E); ``mask`` (B, N) is True if valid."""
        keys = self.keys(h)
        return self.read(queries, masked_softmax(self.score(queries, keys), mask), keys)


def _linear_parameters(num_sets: int, size: int) -> "tuple[nn.Parameter, nn.Parameter]":
    """Create weights (num_sets, E, E) and biases (num_sets, E), initialized as in ``nn.Linear``."""
    bound = 1 / math.sqrt(size)
    weight, bias = torch.empty(num_sets, size, size), torch.empty(num_sets, size)
    return nn.Parameter(weight.uniform_(-bound, bound)), nn.Parameter(bias.uniform_(-bound, bound))
