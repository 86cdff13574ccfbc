"""What a block of QG-MIL consists of."""

from dataclasses import dataclass
from typing import Optional

from torch import nn

from monai_mil_ext.networks.blocks import (
    GatedFeedForward,
    GatedSelfAttention,
    PlainFeedForward,
    PreNormBlock,
)
from monai_mil_ext.networks.layers import make_norm
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["QGMILBlock"]


@dataclass(frozen=True)
class QGMILBlock:
    """What a block of :py:class:`QGMIL` consists of; every choice is free of the others.

    Args:
        num_heads: number H of query heads.
        num_kv_heads: number of heads for keys and values, a divisor of H; ``None`` means H.
        head_size: size of a head; ``None`` means E / H.
        ffn_size: size of the feed-forward part's hidden layer; ``None`` means 4 E.
        norm: ``"rms"`` or ``"layer"``, for the whole network.
        qk_norm: whether each head's queries and keys are normalised, by the same kind of norm.
        gate: of the attention's output: ``"none"``, ``"headwise"`` or ``"elementwise"``.
        ffn: ``"swiglu"`` (three matrices, the hidden layer gated) or ``"mlp"`` (two, with biases).
        activation: of the feed-forward part: ``"silu"``, ``"gelu"`` or ``"relu"``.

    Raises:
        ValueError: when a size is not positive, a name unknown, or ``num_kv_heads`` does not divide ``num_heads``.

    Example:
        >>> QGMILBlock(norm="layer", gate="elementwise").num_heads
        8
    """

    num_heads: int = 8
    num_kv_heads: Optional[int] = None
    head_size: Optional[int] = None
    ffn_size: Optional[int] = None
    norm: str = "rms"
    qk_norm: bool = True
    gate: str = "headwise"
    ffn: str = "swiglu"
    activation: str = "silu"

    def __post_init__(self) -> None:
        """Names what is wrong here, where it was written, and not in the part that stumbles over it."""
        sizes = {"num_kv_heads": self.num_kv_heads, "head_size": self.head_size, "ffn_size": self.ffn_size}
        check_positive(num_heads=self.num_heads, **{name: size for name, size in sizes.items() if size is not None})
        check_choice("norm", self.norm, ("rms", "layer"))
        check_choice("gate", self.gate, ("none", "headwise", "elementwise"))
        check_choice("ffn", self.ffn, ("swiglu", "mlp"))
        check_choice("activation", self.activation, ("silu", "gelu", "relu"))
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise ValueError(f"`num_kv_heads` must divide num_heads {self.num_heads}, got {self.num_kv_heads}.")

    def build(self, size: int, dropout: float = 0.0, round_first: bool = False) -> PreNormBlock:
        """A block for tokens of that size; see :py:class:`WideRMSNorm` for ``round_first``."""

        def norm(features: int) -> nn.Module:
            return make_norm(self.norm, features, round_first=round_first)

        if self.head_size is None and size % self.num_heads:
            raise ValueError(f"`num_heads` must divide hidden_size {size} without head_size, got {self.num_heads}.")
        head_size = self.head_size or size // self.num_heads
        query_norm, key_norm = (norm(head_size), norm(head_size)) if self.qk_norm else (None, None)
        attention = GatedSelfAttention(
            size, self.num_heads, self.num_kv_heads, head_size, self.gate, query_norm, key_norm
        )
        feed_forward = GatedFeedForward if self.ffn == "swiglu" else PlainFeedForward
        fed = feed_forward(size, self.ffn_size or 4 * size, self.activation)
        return PreNormBlock(attention, fed, norm(size), norm(size), dropout)
