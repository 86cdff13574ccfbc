"""Options of a QG-MIL block."""

from dataclasses import dataclass
from typing import Optional

from torch import nn

from monai_mil_ext.networks.blocks import GatedFeedForward, GatedSelfAttention, PlainFeedForward, PreNormBlock
from monai_mil_ext.networks.layers.norms import make_norm
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["QGMILBlock"]


@dataclass(frozen=True)
class QGMILBlock:
    """Options of a transformer block of :py:class:`QGMIL`, which can be combined freely.

    Args:
        num_heads: number H of query heads.
        num_kv_heads: number of key and value heads, a divisor of H; ``None`` means H.
        head_size: size of a head; ``None`` means E / H.
        ffn_size: size of the hidden layer of the feed-forward network; ``None`` means 4 E.
        norm: normalization of the whole network, ``"rms"`` or ``"layer"``.
        qk_norm: whether the queries and keys of each head are normalized as well.
        gate: gate of the attention output, ``"none"``, ``"headwise"`` or ``"elementwise"``.
        ffn: feed-forward network, ``"swiglu"`` (gated, three matrices) or ``"mlp"`` (two matrices with biases).
        activation: activation of the feed-forward network, ``"silu"``, ``"gelu"`` or ``"relu"``.

    Raises:
        ValueError: when a size is not positive, an option is unknown, or ``num_kv_heads`` does not divide
            ``num_heads``.

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
        """Check the options here, where they are set, and not in the layers that use them."""
        sizes = {"num_kv_heads": self.num_kv_heads, "head_size": self.head_size, "ffn_size": self.ffn_size}
        check_positive(num_heads=self.num_heads, **{name: size for name, size in sizes.items() if size is not None})
        check_choice("norm", self.norm, ("rms", "layer"))
        check_choice("gate", self.gate, ("none", "headwise", "elementwise"))
        check_choice("ffn", self.ffn, ("swiglu", "mlp"))
        check_choice("activation", self.activation, ("silu", "gelu", "relu"))
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise ValueError(f"`num_kv_heads` must divide num_heads {self.num_heads}, got {self.num_kv_heads}.")

    def build(self, size: int, dropout: float = 0.0, round_first: bool = False) -> PreNormBlock:
        """Create a block for tokens of the given size; see :py:class:`RMSNormFp32` for ``round_first``."""

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
        ffn = feed_forward(size, self.ffn_size or 4 * size, self.activation)
        return PreNormBlock(attention, ffn, norm(size), norm(size), dropout)
