"""Network of discrete survival in other bins of time than those of its training."""

from typing import List, Optional, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .bag_net import BagNet, BagOutput

__all__ = ["RebinnedSurvivalNet"]


class RebinnedSurvivalNet(BagNet):
    r"""Network of discrete survival that answers in other bins of time than those it was trained with.

    Networks whose bins were chosen by different training parts become comparable in this way, so that they can be
    averaged by :py:class:`BagEnsemble`. With logits :math:`z_j` of the hazards of the bins :math:`b_j` of the network,
    and a hazard that is constant within each bin, the new bins :math:`b'_k` have

    .. math:: \log (1 - h'_k) = \sum_j \frac{|b_j \cap b'_k|}{|b_j|} \log (1 - \sigma(z_j))

    and the logits of :math:`h'_k`. The first bins begin at 0, and the last ones are open: whatever follows the last new
    edge is in the last new bin, so that the probability to survive all bins stays. Class attributes such as
    ``permutation_invariant`` are those of the network.

    Args:
        net: network with a logit for each of its bins, which are one more than its edges.
        edges: increasing positive ends of the bins of the network, without that of the last one, which is open.
        new_edges: increasing positive ends of the new bins; the last one at most that of ``edges``.

    Raises:
        ValueError: when edges are not positive and increasing, the last new one lies in the open bin, or the network
            has another number of logits.

    Example:
        >>> from monai_mil_ext.networks.nets import MeanMIL
        >>> net, x = MeanMIL(in_features=8, num_classes=3), torch.rand(1, 5, 8)
        >>> halves = RebinnedSurvivalNet(net, edges=[6.0, 12.0], new_edges=[3.0, 6.0, 12.0])
        >>> survival = (1 - halves(x).sigmoid()).cumprod(dim=1)
        >>> torch.allclose(survival[:, 1:], (1 - net(x).sigmoid()).cumprod(dim=1))
        True
    """

    shares: Tensor

    def __init__(self, net: BagNet, edges: Sequence[float], new_edges: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("edges", edges), ("new_edges", new_edges)):
            if not len(values) or min(values) <= 0 or sorted(set(values)) != list(values):
                raise ValueError(f"`{name}` must be positive and increase, got {list(values)}.")
        if new_edges[-1] > edges[-1]:
            raise ValueError(f"`new_edges` must be at most the last of `edges`, {edges[-1]:g}, got {new_edges[-1]:g}.")
        self.net = net
        self.register_buffer("shares", torch.tensor(_shares(edges, new_edges)), persistent=False)
        self.score_tap = net.score_tap  # the same tap under two names
        self.take_properties(net)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`; there is a logit for each new bin."""
        output: BagOutput = self.net.forward_bag(x, mask)
        if output.logits.shape[1] != self.shares.shape[0]:
            raise ValueError(f"`net` must have {self.shares.shape[0]} logits, got {output.logits.shape[1]}.")
        z = output.logits if output.logits.dtype == torch.float64 else output.logits.float()
        hazard = -(logsigmoid(-z).unsqueeze(2) * self.shares.to(z.dtype)).sum(dim=1)  # cumulative, within each new bin
        hazard = hazard.clamp(min=1.2e-38)  # the smallest normal number of float32, whose logarithm is finite
        logits = (hazard + torch.log(-torch.expm1(-hazard))).to(output.logits.dtype)
        return BagOutput(logits, output.attention, output.scores, output.embedding)


def _shares(edges: Sequence[float], new_edges: Sequence[float]) -> List[List[float]]:
    """Return the share of each bin that lies in each new bin; all that follows the last new edge is in the last one.

    Example:
        >>> _shares([4.0, 8.0], [1.0, 6.0])
        [[0.25, 0.75, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    """
    starts, new_starts = [0.0, *edges[:-1]], [0.0, *new_edges]
    new_ends = [*new_edges, edges[-1]]
    rows = [
        [
            max(0.0, min(end, new_end) - max(start, new_start)) / (end - start)
            for new_start, new_end in zip(new_starts, new_ends, strict=True)
        ]
        for start, end in zip(starts, edges, strict=True)
    ]
    return [*rows, [0.0] * len(new_edges) + [1.0]]
