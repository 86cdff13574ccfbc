"""Building blocks of networks: attention, feed-forward and transformer blocks."""

from .attention_scores import GatedScores, TanhScores
from .class_token_attention import ClassTokenAttention, first_token_scores
from .feed_forward import GatedFeedForward, PlainFeedForward
from .gated_self_attention import AttentionHeads, GatedSelfAttention, head_scores, head_weights, pass_on
from .nystrom_attention import NystromAttention, pseudo_inverse
from .position_conv import PositionConv
from .pre_norm_block import PreNormBlock
from .token_attention import FoldedAttention, PreNormTokens, TokenAttention
from .top_instance_masking import TopInstanceMasking

__all__ = [
    "AttentionHeads",
    "ClassTokenAttention",
    "FoldedAttention",
    "GatedFeedForward",
    "GatedScores",
    "GatedSelfAttention",
    "NystromAttention",
    "PlainFeedForward",
    "PositionConv",
    "PreNormBlock",
    "PreNormTokens",
    "TanhScores",
    "TokenAttention",
    "TopInstanceMasking",
    "first_token_scores",
    "head_scores",
    "head_weights",
    "pass_on",
    "pseudo_inverse",
]
