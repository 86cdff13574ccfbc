"""Wrapper that reports received attention as the attention of QG-MIL."""

from typing import Any, Dict, Optional

from torch import Tensor, nn

from monai_mil_ext.networks.nets.transformers.qgmil import QGMIL

from .bag_net import BagNet
from .encoded_bag import EncodedBag

__all__ = ["ReceivedAttentionWrapper"]


class ReceivedAttentionWrapper(nn.Module):
    """Wrapper like :py:class:`BagOutputWrapper` whose ``attention`` (B, N, 1) is that received from other instances.

    Everything that reads attention in an evaluation (metrics, savers, figures) then reads
    :py:meth:`QGMIL.received_attention`; the logits are those of the network.

    Args:
        net: a :py:class:`QGMIL`, or an :py:class:`EncodedBag` with such an aggregator; the weights are shared.
        layer: index of the block; negative indices count from the last.

    Raises:
        ValueError: when the network is not a QG-MIL.

    Example:
        >>> import torch
        >>> net = ReceivedAttentionWrapper(QGMIL(in_features=8, num_classes=2, hidden_size=16)).eval()
        >>> output = net(torch.rand(1, 5, 8))
        >>> output["attention"].shape, round(output["attention"].sum().item(), 4)
        (torch.Size([1, 5, 1]), 1.0)
    """

    def __init__(self, net: BagNet, layer: int = -1) -> None:
        super().__init__()
        if not isinstance(net.aggregator if isinstance(net, EncodedBag) else net, QGMIL):
            raise ValueError(f"`net` must be QGMIL, or EncodedBag with such an aggregator, got {type(net).__name__}.")
        self.net = net
        self.layer = layer

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Return all outputs for bags as a dictionary; ``mask`` (B, N) is True for a valid instance."""
        net: Any = self.net
        if isinstance(net, EncodedBag):
            x, net = net.encode(x, mask), net.aggregator
        output = net.forward_bag(x, mask)._asdict()
        output["attention"] = net.received_attention(x, mask, self.layer).unsqueeze(-1)
        return {name: value for name, value in output.items() if value is not None}
