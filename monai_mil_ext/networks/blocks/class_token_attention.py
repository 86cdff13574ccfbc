"""Multi-head attention among tokens, of which the first is the class token."""

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import attention_pool
from monai_mil_ext.utils import check_positive

__all__ = ["ClassTokenAttention", "cls_token_scores"]


class ClassTokenAttention(nn.Module):
    r"""Standard multi-head attention, with a shortcut for the output of the first token alone.

    .. math:: A_h = \operatorname{softmax}\left(\frac{q_h k_h^\top}{\sqrt{d}}\right), \quad y = W_o [A_h v_h]_h + b_o

    :py:meth:`forward` computes y of all tokens by fused attention. :py:meth:`cls_scores` and :py:meth:`cls_output`
    compute y of the first token alone in O(T E H): the query is multiplied into the key weights, and tokens are pooled
    before they are projected to values, so that no key and no value is computed.

    Args:
        size: size E of a token.
        num_heads: number H of heads.

    Raises:
        ValueError: when a size is not positive or H does not divide E.

    Example:
        >>> attend, tokens = ClassTokenAttention(8, num_heads=2), torch.rand(1, 5, 8)
        >>> attention = attend.cls_scores(tokens).softmax(1)
        >>> torch.allclose(attend.cls_output(attention, tokens), attend(tokens)[:, 0], atol=1e-5)
        True
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        check_positive(size=size, num_heads=num_heads)
        if size % num_heads:
            raise ValueError(f"`num_heads` must divide the size {size} of a token, got {num_heads}.")
        self.num_heads = num_heads
        self.project = nn.Linear(size, 3 * size)
        self.merge = nn.Linear(size, size)
        # initialized like nn.MultiheadAttention
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.merge.bias)

    def forward(self, h: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Apply attention to tokens (B, T, E); ``mask`` (B, T) is True for at least one token per bag."""
        q, k, v = self.project(h).unflatten(-1, [3, self.num_heads, -1]).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if mask is None else mask[:, None, None, :]
        attended = functional.scaled_dot_product_attention(q, k, v, mask)
        out: Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return out

    def cls_scores(self, h: Tensor) -> Tensor:
        """Compute the scores (B, T, H), before the softmax, of tokens (B, T, E) with the first token as query."""
        return cls_token_scores(h, self.project.weight, self.project.bias, self.num_heads)

    def cls_output(self, attention: Tensor, h: Tensor) -> Tensor:
        """Compute the output (B, E) of the first of tokens (B, T, E) for attention (B, T, H), which sums to one."""
        size = h.shape[2]
        weight = self.project.weight[2 * size :].view(self.num_heads, -1, size)
        pooled = attention_pool(attention, h).to(weight.dtype)
        value = torch.einsum("bhe,hde->bhd", pooled, weight).flatten(1) + self.project.bias[2 * size :]
        output: Tensor = self.merge(value)
        return output


def cls_token_scores(h: Tensor, weight: Tensor, bias: Optional[Tensor], num_heads: int) -> Tensor:
    """Compute the scores (B, T, H), before the softmax, of tokens (B, T, E) with the first token as query.

    ``weight`` (3 E, E) and ``bias`` (3 E,) project tokens to queries, keys and values.
    """
    size = h.shape[2]
    query = functional.linear(h[:, 0], weight[:size], None if bias is None else bias[:size])
    query = query.unflatten(1, [num_heads, -1]) / math.sqrt(size // num_heads)
    absorbed = torch.einsum("bhd,hde->bhe", query, weight[size : 2 * size].view(num_heads, -1, size))
    scores = h @ absorbed.transpose(1, 2)
    if bias is None:
        return scores
    return scores + (query * bias[size : 2 * size].view(num_heads, -1)).sum(-1).unsqueeze(1)
