"""Wrapper that reports signed contributions of instances as the attention."""

from typing import Any, Dict, List, Optional

import torch
from torch import Tensor, nn

from .bag_net import BagNet

__all__ = ["ContributionWrapper"]

TAP = "contribution_tap"


class ContributionWrapper(nn.Module):
    """Wrapper like :py:class:`BagOutputWrapper` whose ``attention`` (B, N, C) is the signed contribution of instances.

    Everything that reads attention in an evaluation (savers, figures) then reads what each instance adds to the logit
    of each class: positive for it, negative against it, zero at padding. The logits are those of the network, to which
    contributions sum, up to the mean of the targets in a :py:class:`StandardizedNet` of a regression; those of a
    :py:class:`BagEnsemble` are the means over its members.

    Args:
        net: an :py:class:`AdditiveMIL`, or a network that consists of some; the weights are shared.

    Raises:
        ValueError: when the network has no contributions.

    Example:
        >>> from monai_mil_ext.networks.nets import AdditiveMIL
        >>> output = ContributionWrapper(AdditiveMIL(in_features=8, num_classes=2))(torch.rand(1, 5, 8))
        >>> torch.allclose(output["attention"].sum(1), output["logits"], atol=1e-6)
        True
    """

    def __init__(self, net: BagNet) -> None:
        super().__init__()
        self.net = net
        self._taps: List[Any] = [part for name, part in net.named_modules() if name.rpartition(".")[2] == TAP]
        if not self._taps:
            raise ValueError(f"`net` must be AdditiveMIL, or consist of such networks, got {type(net).__name__}.")

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Return all outputs for bags as a dictionary; ``mask`` (B, N) is True for a valid instance."""
        seen: List[Tensor] = []
        handles = [tap.register_forward_hook(lambda *args: seen.append(args[-1])) for tap in self._taps]
        try:
            output = self.net.forward_bag(x, mask)._asdict()
        finally:
            for handle in handles:
                handle.remove()
        scales: List[Any] = [part.output_scale for part in self.net.modules() if hasattr(part, "output_scale")]
        if len(scales) == len(seen):  # of a network that standardizes, or of each member of an ensemble
            seen = [contributions * scale for contributions, scale in zip(seen, scales)]  # noqa: B905 - same length
        output["attention"] = torch.stack(seen).mean(0)
        return {name: value for name, value in output.items() if value is not None}
