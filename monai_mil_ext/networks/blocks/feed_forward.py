"""Feed-forward networks of a transformer block, gated and plain."""

from torch import Tensor, nn

from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["GatedFeedForward", "PlainFeedForward"]

ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}


class GatedFeedForward(nn.Module):
    r"""Feed-forward network with a gated hidden layer; SwiGLU if the activation is SiLU.

    .. math:: y = W_\text{down} (\phi(W_\text{gate} x) \odot W_\text{up} x)

    Args:
        size: number E of input and output features.
        hidden_size: size of the hidden layer and of its gate.
        activation: ``"silu"``, ``"gelu"`` or ``"relu"``.

    Raises:
        ValueError: when a size is not positive or the activation is unknown.

    References:
        Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.

    Example:
        >>> import torch
        >>> sum(p.numel() for p in GatedFeedForward(8, 32).parameters()) == 3 * 8 * 32
        True
    """

    def __init__(self, size: int, hidden_size: int, activation: str = "silu") -> None:
        super().__init__()
        check_positive(size=size, hidden_size=hidden_size)
        check_choice("activation", activation, ACTIVATIONS)
        self.gate_proj = nn.Linear(size, hidden_size, bias=False)
        self.up_proj = nn.Linear(size, hidden_size, bias=False)
        self.down_proj = nn.Linear(hidden_size, size, bias=False)
        self.activate = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map instances (B, N, E) to instances (B, N, E)."""
        y: Tensor = self.down_proj(self.activate(self.gate_proj(x)) * self.up_proj(x))
        return y


class PlainFeedForward(nn.Module):
    r"""Feed-forward network with one hidden layer.

    .. math:: y = W_2 \phi(W_1 x + b_1) + b_2

    Args:
        size: number E of input and output features.
        hidden_size: size of the hidden layer.
        activation: ``"silu"``, ``"gelu"`` or ``"relu"``.

    Raises:
        ValueError: when a size is not positive or the activation is unknown.

    Example:
        >>> import torch
        >>> PlainFeedForward(8, 32, activation="gelu")(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, size: int, hidden_size: int, activation: str = "silu") -> None:
        super().__init__()
        check_positive(size=size, hidden_size=hidden_size)
        check_choice("activation", activation, ACTIVATIONS)
        self.fc1 = nn.Linear(size, hidden_size)
        self.activate = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden_size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map instances (B, N, E) to instances (B, N, E)."""
        y: Tensor = self.fc2(self.activate(self.fc1(x)))
        return y
