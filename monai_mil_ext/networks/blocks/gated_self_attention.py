"""Self-attention whose output is gated, head by head or feature by feature."""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import bag_pool
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["AttentionHeads", "GatedSelfAttention", "head_scores", "head_weights", "pass_on"]

CHUNK = 2**22  # entries of P that exist at once while its rows are added up


class AttentionHeads(NamedTuple):
    """What the heads make of T tokens, for the first Q of them as queries.

    Attributes:
        query: (B, H, Q, d), normalised where the layer normalises.
        key: (B, KV, T, d); head r serves the queries of heads r H / KV to (r + 1) H / KV - 1.
        value: (B, KV, T, d).
        gate: (B, Q, H, 1) or (B, Q, H, d) before the sigmoid; ``None`` without a gate.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    gate: Optional[Tensor]


class GatedSelfAttention(nn.Module):
    r"""Lets tokens attend to one another, and each token decide how much of what it found it takes.

    .. math::
        P_h = \operatorname{softmax}\left(\frac{q_h k_h^\top}{\sqrt{d}}\right), \quad
        y = W_o [P_1 v_1 \odot \sigma(g_1); \dots; P_H v_H \odot \sigma(g_H)]

    The gate logits g are rows of the query matrix and come from the token that asks. Those rows stand in groups, one a
    key head: first the queries of its H / KV heads, then their gates. P is never stored whole.

    Args:
        size: size E of a token, in and out.
        num_heads: number H of query heads.
        num_kv_heads: number KV of heads for keys and values; ``None`` means H.
        head_size: size d of a head; ``None`` means E / H.
        gate: ``"none"``, ``"headwise"`` (one number a head) or ``"elementwise"`` (d numbers a head).
        query_norm: applied to each head's queries over d; ``None`` leaves them.
        key_norm: the same for keys.

    Raises:
        ValueError: when a size is not positive, KV does not divide H, H does not divide E and there is no
            ``head_size``, or there is no such gate.

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
        self.rows = num_heads // self.num_kv_heads * (self.head_size + self.gate_size)  # of W_q, a key head
        inner, inner_kv = num_heads * self.head_size, self.num_kv_heads * self.head_size
        self.q_proj = nn.Linear(size, inner + num_heads * self.gate_size, bias=False)
        self.k_proj = nn.Linear(size, inner_kv, bias=False)
        self.v_proj = nn.Linear(size, inner_kv, bias=False)
        self.o_proj = nn.Linear(inner, size, bias=False)
        self.q_norm = query_norm or nn.Identity()
        self.k_norm = key_norm or nn.Identity()
        self.open_gate = nn.Sigmoid()

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Tokens (B, T, E) in, the same out; ``mask`` (B, T) is True for a token that others may attend to."""
        return self.mix(self.project(x), mask)

    def project(self, x: Tensor, first_only: bool = False) -> AttentionHeads:
        """Queries, keys, values and gates of tokens (B, T, E); with ``first_only`` the first token alone asks."""
        asking = x[:, :1] if first_only else x
        bags, count = asking.shape[0], asking.shape[1]
        groups = self.q_proj(asking).unflatten(-1, [self.num_kv_heads, self.rows])
        queries = self.num_heads // self.num_kv_heads * self.head_size
        query = groups[..., :queries].reshape(bags, count, self.num_heads, self.head_size)
        gate: Optional[Tensor] = None
        if self.gate_size > 0:
            gate = groups[..., queries:].reshape(bags, count, self.num_heads, self.gate_size)
        key = self.k_proj(x).unflatten(-1, [self.num_kv_heads, self.head_size])
        value = self.v_proj(x).unflatten(-1, [self.num_kv_heads, self.head_size])
        query, key = self.q_norm(query), self.k_norm(key)
        return AttentionHeads(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), gate)

    def mix(self, heads: AttentionHeads, mask: Optional[Tensor] = None, sizes: Optional[List[int]] = None) -> Tensor:
        """What the queries take from the values, (B, Q, E); ``mask`` (B, T) as in :py:meth:`forward`.

        A bag with no True in its mask gives NaN: its softmax is over nothing. With ``sizes`` the tokens of one row are
        those of several bags, that many of each, and attend within their own.
        """
        if sizes is None:
            allowed = None if mask is None else mask[:, None, None, :]
            found = self._fused(heads.query, heads.key, heads.value, allowed)
        else:
            queries, keys, values = heads.query.split(sizes, 2), heads.key.split(sizes, 2), heads.value.split(sizes, 2)
            found = torch.cat([self._fused(q, keys[i], values[i], None) for i, q in enumerate(queries)], 2)
        taken = found.transpose(1, 2)
        gate = heads.gate
        if gate is not None:
            taken = taken * self.open_gate(gate)
        out: Tensor = self.o_proj(taken.flatten(2))
        return out

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, allowed: Optional[Tensor]) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, allowed, enable_gqa=self.grouped)


def head_scores(query: Tensor, key: Tensor) -> Tensor:
    r""":math:`q k^\top / \sqrt{d}` (B, H, Q, T) in float32 or float64; its size is Q T, so ask with few queries."""
    bags, heads, count, size = query.shape
    tokens = key.shape[2]
    # heads that share a key stand behind one another as its queries, so that no key is repeated
    query = query.reshape(bags * key.shape[1], heads // key.shape[1] * count, size) * size**-0.5
    # sums over d, weighted by the query: this product is wide under autocast too
    products = bag_pool(query.transpose(1, 2), key.flatten(0, 1).transpose(1, 2))
    return products.reshape(bags, heads, count, tokens)


def head_weights(query: Tensor, key: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    """P (B, H, Q, T) itself, post-softmax, zero at tokens outside the mask (B, T). Its size is Q T as well."""
    scores = head_scores(query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    return scores.softmax(-1)


def pass_on(share: Tensor, query: Tensor, key: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    r"""What tokens receive (B, T) when query i has ``share`` (B, Q) to give, in memory linear in T.

    .. math:: r_j = \frac{1}{H} \sum_h \sum_i w_i P_h[i, j]
    """
    bags, heads, count, _ = query.shape
    step = max(1, CHUNK // max(1, bags * heads * key.shape[2]))
    dtype = torch.promote_types(share.dtype, torch.float32)
    total = torch.zeros(bags, key.shape[2], dtype=dtype, device=share.device)
    for start in range(0, count, step):
        part = head_weights(query[:, :, start : start + step], key, mask)
        given = share[:, start : start + step].repeat_interleave(heads, 0).unsqueeze(-1)
        total += bag_pool(given, part.flatten(0, 1)).view(bags, heads, -1).mean(1)
    return total
