"""Scoring of instances by a small network, plain and gated."""

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive, check_rate

__all__ = ["GatedAttention", "TanhAttention"]


class TanhAttention(nn.Module):
    r"""Attention scores of instances from a perceptron with one hidden layer.

    .. math:: s_n = w^\top \tanh(V h_n + b) + c

    Args:
        in_features: size E of an instance.
        attention_size: size of the hidden layer.
        num_heads: number H of scores per instance, which share the hidden layer.
        dropout: dropout rate of the hidden layer.

    Raises:
        ValueError: when a size is not positive, or the rate is not in [0, 1).

    References:
        Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", arXiv:1802.04712, eq. 8.

    Example:
        >>> TanhAttention(in_features=8, num_heads=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 2])
    """

    def __init__(self, in_features: int, attention_size: int = 128, num_heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(in_features=in_features, attention_size=attention_size, num_heads=num_heads)
        check_rate(dropout=dropout)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.value = nn.Linear(in_features, attention_size)
        self.score = nn.Linear(attention_size, num_heads)

    def forward(self, h: Tensor) -> Tensor:
        """Compute scores (B, N, H), before any softmax, of instances (B, N, E)."""
        scores: Tensor = self.score(self.dropout(torch.tanh(self.value(h))))
        return scores


class GatedAttention(nn.Module):
    r"""Attention scores of instances from a perceptron with one gated hidden layer.

    .. math:: s_n = w^\top \left(\tanh(V h_n + b) \odot \sigma(U h_n + d)\right) + c

    Args:
        in_features: size E of an instance.
        attention_size: size of the hidden layer and of its gate.
        num_heads: number H of scores per instance, which share the hidden layer.
        dropout: dropout rate of the hidden layer.

    Raises:
        ValueError: when a size is not positive, or the rate is not in [0, 1).

    References:
        Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", arXiv:1802.04712, eq. 9.

    Example:
        >>> GatedAttention(in_features=8, num_heads=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 2])
    """

    def __init__(self, in_features: int, attention_size: int = 128, num_heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(in_features=in_features, attention_size=attention_size, num_heads=num_heads)
        check_rate(dropout=dropout)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.value = nn.Linear(in_features, attention_size)
        self.gate = nn.Linear(in_features, attention_size)
        self.score = nn.Linear(attention_size, num_heads)

    def forward(self, h: Tensor) -> Tensor:
        """Compute scores (B, N, H), before any softmax, of instances (B, N, E)."""
        gate = self.dropout(torch.sigmoid(self.gate(h)))
        scores: Tensor = self.score(self.dropout(torch.tanh(self.value(h))) * gate)
        return scores
