"""Pre-norm transformer block."""

from typing import List, Optional, Tuple

from torch import Tensor, nn

from monai_mil_ext.networks.layers.bit_dropout import BitDropout

from .gated_self_attention import GatedSelfAttention, ProjectedHeads

__all__ = ["PreNormBlock"]


class PreNormBlock(nn.Module):
    r"""Transformer block with normalization at the input of its attention and of its feed-forward network.

    .. math::
        h' = h + \operatorname{drop}(\operatorname{attend}(\operatorname{norm}_1(h))), \quad
        y = h' + \operatorname{drop}(\operatorname{feed}(\operatorname{norm}_2(h')))

    Args:
        attention: self-attention of the tokens.
        feed_forward: network that maps tokens (B, T, E) one by one.
        first_norm: normalization of the input of the attention.
        second_norm: normalization of the input of the feed-forward network.
        dropout: dropout rate of both outputs before they are added.

    Example:
        >>> import torch
        >>> from monai_mil_ext.networks.blocks import GatedFeedForward
        >>> block = PreNormBlock(GatedSelfAttention(8, 2), GatedFeedForward(8, 32), nn.RMSNorm(8), nn.RMSNorm(8))
        >>> tokens, heads = block(torch.rand(1, 5, 8))
        >>> tokens.shape, heads.query.shape
        (torch.Size([1, 5, 8]), torch.Size([1, 2, 5, 4]))
    """

    def __init__(
        self,
        attention: GatedSelfAttention,
        feed_forward: nn.Module,
        first_norm: nn.Module,
        second_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_layernorm = first_norm
        self.post_attention_layernorm = second_norm
        self.self_attn = attention
        self.mlp = feed_forward
        self.dropout = BitDropout(dropout)

    def forward(
        self, h: Tensor, mask: Optional[Tensor] = None, first_only: bool = False, sizes: Optional[List[int]] = None
    ) -> Tuple[Tensor, ProjectedHeads]:
        """Return the tokens (B, T, E), or with ``first_only`` the first token alone, and the projected heads.

        ``mask`` (B, T) is True for a valid token. With ``sizes``, the tokens (1, T, E) are those of several bags, with
        these numbers of tokens.
        """
        heads = self.project(h, first_only)
        if first_only:
            h = h[:, :1]
        h = h + self.dropout(self.self_attn.mix(heads, mask, sizes))
        h = h + self.dropout(self.mlp(self.post_attention_layernorm(h)))
        return h, heads

    def project(self, h: Tensor, first_only: bool = False) -> ProjectedHeads:
        """Return the projected heads with which :py:meth:`forward` attends."""
        heads: ProjectedHeads = self.self_attn.project(self.input_layernorm(h), first_only)
        return heads
