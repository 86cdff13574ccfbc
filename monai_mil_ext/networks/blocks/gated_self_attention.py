"""Self-attention with an output gate, per head or per feature."""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import attention_pool
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["GatedSelfAttention", "ProjectedHeads", "attention_logits", "attention_weights", "propagate_attention"]

CHUNK = 2**22  # entries of P in memory at once while its rows are accumulated


class ProjectedHeads(NamedTuple):
    """Projections of T tokens by the heads of an attention layer, with the first Q tokens as queries.

    Attributes:
        query: queries (B, H, Q, d), normalized if the layer has query norms.
        key: keys (B, KV, T, d); head r serves the queries of heads r H / KV to (r + 1) H / KV - 1.
        value: values (B, KV, T, d).
        gate: gates (B, Q, H, 1) or (B, Q, H, d) before the sigmoid; ``None`` without a gate.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    gate: Optional[Tensor]


class GatedSelfAttention(nn.Module):
    r"""Multi-head self-attention whose output is gated by the query token, proposed in arXiv:2505.06708.

    .. math::
        P_h = \operatorname{softmax}\left(\frac{q_h k_h^\top}{\sqrt{d}}\right), \quad
        y = W_o [P_1 v_1 \odot \sigma(g_1); \dots; P_H v_H \odot \sigma(g_H)]

    The gate logits g are computed from the query token by additional rows of the query matrix. The rows are grouped by
    key head: first the queries of its H / KV heads, then their gates. P is never materialized.

    Args:
        size: number E of input and output features of a token.
        num_heads: number H of query heads.
        num_kv_heads: number KV of key and value heads; ``None`` means H.
        head_size: size d of a head; ``None`` means E / H.
        gate: ``"none"``, ``"headwise"`` (one gate per head) or ``"elementwise"`` (d gates per head).
        query_norm: normalization of the queries of each head over d; ``None`` means none.
        key_norm: normalization of the keys of each head over d; ``None`` means none.

    Raises:
        ValueError: when a size is not positive, KV does not divide H, H does not divide E without a ``head_size``, or
            the gate is unknown.

    References:
        Qiu et al., "Gated Attention for Large Language Models", arXiv:2505.06708.

    Example:
        >>> attention = GatedSelfAttention(size=8, num_heads=4, num_kv_heads=2)
        >>> tokens, mask = torch.rand(1, 3, 8), torch.tensor([[True, True, False]])
        >>> attention(tokens, mask).shape
        torch.Size([1, 3, 8])
        >>> attention.q_proj.weight.shape[0] == 4 * 2 + 4  # queries of four heads, and a gate for each
        True
    """

    def __init__(
        self,
        size: int,
        num_heads: int,
        num_kv_heads: Optional[int] = None,
        head_size: Optional[int] = None,
        gate: str = "headwise",
        query_norm: Optional[nn.Module] = None,
        key_norm: Optional[nn.Module] = None,
    ) -> None:
        super().__init__()
        check_positive(size=size, num_heads=num_heads)
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if head_size is None and size % num_heads:
            raise ValueError(f"`num_heads` must divide the size {size} of a token, got {num_heads}.")
        self.head_size = size // num_heads if head_size is None else head_size
        check_positive(num_kv_heads=self.num_kv_heads, head_size=self.head_size)
        if num_heads % self.num_kv_heads:
            raise ValueError(f"`num_kv_heads` must divide num_heads {num_heads}, got {self.num_kv_heads}.")
        check_choice("gate", gate, ("none", "headwise", "elementwise"))
        self.gate_size = {"none": 0, "headwise": 1, "elementwise": self.head_size}[gate]
        self.grouped = self.num_kv_heads < num_heads
        # rows of the query matrix per key head
        self.rows = num_heads // self.num_kv_heads * (self.head_size + self.gate_size)
        inner, inner_kv = num_heads * self.head_size, self.num_kv_heads * self.head_size
        self.q_proj = nn.Linear(size, inner + num_heads * self.gate_size, bias=False)
        self.k_proj = nn.Linear(size, inner_kv, bias=False)
        self.v_proj = nn.Linear(size, inner_kv, bias=False)
        self.o_proj = nn.Linear(inner, size, bias=False)
        self.q_norm = query_norm or nn.Identity()
        self.k_norm = key_norm or nn.Identity()
        self.open_gate = nn.Sigmoid()

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Apply attention to tokens (B, T, E); ``mask`` (B, T) is True for a token that others may attend to."""
        return self.mix(self.project(x), mask)

    def project(self, x: Tensor, first_only: bool = False) -> ProjectedHeads:
        """Project tokens (B, T, E) to queries, keys, values and gates; ``first_only`` makes one token the query."""
        queries = x[:, :1] if first_only else x
        bags, count = queries.shape[0], queries.shape[1]
        groups = self.q_proj(queries).unflatten(-1, [self.num_kv_heads, self.rows])
        query_rows = self.num_heads // self.num_kv_heads * self.head_size
        query = groups[..., :query_rows].reshape(bags, count, self.num_heads, self.head_size)
        gate: Optional[Tensor] = None
        if self.gate_size > 0:
            gate = groups[..., query_rows:].reshape(bags, count, self.num_heads, self.gate_size)
        key = self.k_proj(x).unflatten(-1, [self.num_kv_heads, self.head_size])
        value = self.v_proj(x).unflatten(-1, [self.num_kv_heads, self.head_size])
        query, key = self.q_norm(query), self.k_norm(key)
        return ProjectedHeads(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), gate)

    def mix(self, heads: ProjectedHeads, mask: Optional[Tensor] = None, sizes: Optional[List[int]] = None) -> Tensor:
        """Compute the gated output (B, Q, E) of the queries; ``mask`` (B, T) as in :py:meth:`forward`.

        A bag whose mask is all False gives NaN, since its softmax is empty. With ``sizes``, one row holds the tokens of
        several bags, with these numbers of tokens, and tokens attend within their own bag.
        """
        if sizes is None:
            mask = None if mask is None else mask[:, None, None, :]
            attended = self._attend(heads.query, heads.key, heads.value, mask)
        else:
            queries, keys, values = heads.query.split(sizes, 2), heads.key.split(sizes, 2), heads.value.split(sizes, 2)
            attended = torch.cat([self._attend(q, keys[i], values[i], None) for i, q in enumerate(queries)], 2)
        attended = attended.transpose(1, 2)
        gate = heads.gate
        if gate is not None:
            attended = attended * self.open_gate(gate)
        out: Tensor = self.o_proj(attended.flatten(2))
        return out

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Optional[Tensor]) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=self.grouped)


def attention_logits(query: Tensor, key: Tensor) -> Tensor:
    r"""Compute the scores :math:`q k^\top / \sqrt{d}` (B, H, Q, T) in float32 or float64.

    The result has Q T entries per head, so pass few queries.
    """
    bags, heads, count, size = query.shape
    tokens = key.shape[2]
    # the queries of heads that share a key are concatenated, so that no key is repeated
    query = query.reshape(bags * key.shape[1], heads // key.shape[1] * count, size) * size**-0.5
    # as a pooling over d weighted by the query, which computes in float32 also under autocast
    products = attention_pool(query.transpose(1, 2), key.flatten(0, 1).transpose(1, 2))
    return products.reshape(bags, heads, count, tokens)


def attention_weights(query: Tensor, key: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    """Compute the attention weights P (B, H, Q, T), zero outside the mask (B, T); Q T entries per head."""
    scores = attention_logits(query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    return scores.softmax(-1)


def propagate_attention(weights: Tensor, query: Tensor, key: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    r"""Propagate per-query weights (B, Q) through the attention matrix to (B, T), using O(T) memory.

    .. math:: r_j = \frac{1}{H} \sum_h \sum_i w_i P_h[i, j]
    """
    bags, heads, count, _ = query.shape
    step = max(1, CHUNK // max(1, bags * heads * key.shape[2]))
    dtype = torch.promote_types(weights.dtype, torch.float32)
    total = torch.zeros(bags, key.shape[2], dtype=dtype, device=weights.device)
    for start in range(0, count, step):
        attention = attention_weights(query[:, :, start : start + step], key, mask)
        chunk = weights[:, start : start + step].repeat_interleave(heads, 0).unsqueeze(-1)
        total += attention_pool(chunk, attention.flatten(0, 1)).view(bags, heads, -1).mean(1)
    return total
