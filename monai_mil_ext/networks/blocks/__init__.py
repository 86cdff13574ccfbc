"""Building blocks of networks."""

from .attention_scores import GatedAttention, TanhAttention
from .class_token_attention import ClassTokenAttention
from .feed_forward import GatedFeedForward, PlainFeedForward
from .gated_self_attention import GatedSelfAttention
from .nystrom_attention import NystromAttention
from .position_conv import PositionConv
from .pre_norm_block import PreNormBlock
from .query_attention import AbsorbedAttention, PreNormQueryAttention, QueryAttention
from .top_instance_masking import TopInstanceMasking

__all__ = [
    "AbsorbedAttention",
    "ClassTokenAttention",
    "GatedAttention",
    "GatedFeedForward",
    "GatedSelfAttention",
    "NystromAttention",
    "PlainFeedForward",
    "PositionConv",
    "PreNormBlock",
    "PreNormQueryAttention",
    "QueryAttention",
    "TanhAttention",
    "TopInstanceMasking",
]
