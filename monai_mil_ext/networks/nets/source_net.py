"""Network for bags whose instances come from several encoders or magnifications."""

from typing import Dict, List, Mapping, Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["SourceNet"]


class SourceNet(BagNet):
    r"""Network that joins instances of several sources, such as encoders or magnifications, in one bag.

    Each source g has its own linear layer and its embedding, which are learned, and the network takes the sum
    (with ``normalize``, of :math:`x_n` after a layer norm without weights, since encoders differ in scale):

    .. math:: h_n = W_g x_n + b_g + e_g, \quad g = \text{source of } n

    Bags are those of :py:class:`monai_mil_ext.transforms.JoinSourcesd` and
    :py:func:`monai_mil_ext.data.join_bag_files`: features (B, N, F + 1) of the largest source,
    the others with zeros behind theirs, and last the index of the source. Attention is that of the network, over
    the instances of all sources: summed over those of a source, it is the weight of that source. Names and sizes of the
    sources are in ``model.json``, with the other arguments of the network. Class attributes such as
    ``permutation_invariant`` are those of the network. Features must not be standardized over a cohort
    (``takes_raw_features``), which would change the index.

    Args:
        net: network for bags (B, N, ``hidden_size``).
        sources: number of features of each source by its name, in the order of the transform.
        hidden_size: size of a projected instance.
        normalize: whether each instance gets mean 0 and variance 1 over its features first.

    Raises:
        ValueError: when there is no source, a size is not positive, or the input has the wrong shape.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> net = SourceNet(ABMIL(in_features=16, num_classes=2), {"10x": 8, "20x": 6}, hidden_size=16)
        >>> net(torch.zeros(1, 5, 9)).shape
        torch.Size([1, 2])
    """

    takes_raw_features = True

    def __init__(self, net: BagNet, sources: Mapping[str, int], hidden_size: int, normalize: bool = False) -> None:
        super().__init__()
        if not sources:
            raise ValueError("`sources` must have at least one source, got none.")
        check_positive(hidden_size=hidden_size, **{f"sources[{name!r}]": size for name, size in sources.items()})
        self.net = net
        self.source_names: List[str] = list(sources)
        self.in_features = max(sources.values()) + 1
        self.project = nn.ModuleList([_Source(size, hidden_size, normalize) for size in sources.values()])
        self.score_tap = net.score_tap  # the same tap under two names
        self.take_properties(net)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`, for bags (B, N, F + 1) with the index of the source last."""
        output: BagOutput = self.net.forward_bag(self.change_input(x, mask), mask)
        return output

    def change_input(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Project instances (B, N, F + 1) by the layers of their sources, to (B, N, E)."""
        self.check_input(x, mask, self.in_features)
        x = zero_out_padding(x, mask)
        source = self._source_index(x)
        parts: List[Tensor] = []
        for g, project in enumerate(self.project):
            parts.append(project(x) * (source == g))
        return torch.stack(parts).sum(0)

    def _source_index(self, x: Tensor) -> Tensor:
        """Return the index (B, N, 1) of the source of each instance, the nearest of those that there are."""
        return x[..., -1:].detach().round().clamp(0, len(self.project) - 1)

    def source_attention(self, attention: Tensor, x: Tensor) -> Dict[str, Tensor]:
        """Return the attention (B, H) that the instances of each source have together, by name of the source.

        Args:
            attention: attention (B, N, H) of the network for the bags.
            x: the bags (B, N, F + 1).
        """
        source = self._source_index(x)
        return {name: attention.masked_fill(source != g, 0.0).sum(1) for g, name in enumerate(self.source_names)}


class _Source(nn.Module):
    """Linear layer on the features of a source, and the embedding of the source."""

    def __init__(self, in_features: int, out_features: int, normalize: bool) -> None:
        super().__init__()
        self.in_features = in_features
        self.norm = nn.LayerNorm(in_features, elementwise_affine=False) if normalize else nn.Identity()
        self.linear = nn.Linear(in_features, out_features)
        self.embedding = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Compute projected instances (B, N, E) of joined ones (B, N, F + 1)."""
        h: Tensor = self.linear(self.norm(x[..., : self.in_features])) + self.embedding
        return h
