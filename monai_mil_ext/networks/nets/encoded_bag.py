"""Instance encoder and MIL aggregator as one network."""

from typing import List, Optional

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.utils import check_mask, check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["EncodedBag"]


class EncodedBag(BagNet):
    """Network that encodes the instances of bags (B, N, C, H, W) and aggregates their features, with a mask.

    It corresponds to MONAI's ``MILModel``. Only valid instances reach the encoder, so padding costs no time and does
    not change batch statistics. If the network is compiled, exported or scripted, shapes must not depend on the values
    of the mask, so padding is encoded as zeros, and all instances at once. With chunks, batch norm in training mode
    normalizes each chunk separately. Class attributes such as ``permutation_invariant`` are those of the aggregator.

    Args:
        encoder: network from instances (n, C, H, W), or of any other shape, to features (n, F).
        aggregator: network from bags of features (B, N, F) to the output.
        chunk_size: number of instances to encode at once; ``None`` means all.
        recompute: whether to recompute the activations of the encoder for the gradients instead of storing them; with
            ``chunk_size``, memory is that of one chunk instead of the whole batch, and time a third more.

    Raises:
        ValueError: when ``chunk_size`` is not positive, the input has fewer than three axes, the mask is not (B, N) of
            ``torch.bool``, or the output of the encoder is not (n, F).

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> encoder = nn.Sequential(nn.Conv2d(3, 8, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = EncodedBag(encoder, ABMIL(in_features=8, num_classes=2), chunk_size=16)
        >>> net(torch.rand(2, 30, 3, 32, 32)).shape
        torch.Size([2, 2])
    """

    def __init__(
        self, encoder: nn.Module, aggregator: BagNet, chunk_size: Optional[int] = None, recompute: bool = False
    ) -> None:
        super().__init__()
        check_positive(chunk_size=1 if chunk_size is None else chunk_size)
        self.encoder = encoder
        self.aggregator = aggregator
        self.score_tap = aggregator.score_tap  # the same tap under two names
        self.chunk_size = 0 if chunk_size is None else chunk_size
        self.recompute = recompute
        self.take_properties(aggregator)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs for bags (B, N, C, H, W); ``mask`` (B, N) is True for a valid instance."""
        if not torch.jit.is_scripting():
            if x.ndim < 3:
                raise ValueError(f"`x` must have shape (B, N, C, H, W), got {tuple(x.shape)}.")
            if mask is not None:
                check_mask(mask, x)
        return self.aggregate(self.encode(x, mask), mask)

    def encode(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Encode the instances of bags (B, N, C, H, W) to features (B, N, F), zero at padding."""
        bags, n = x.shape[0], x.shape[1]
        if not torch.jit.is_scripting():
            valid = None if torch.compiler.is_compiling() else _valid_instances(x, mask)
            if valid is not None:
                features = self._encode_valid(valid)
                if mask is not None:
                    features = features.new_zeros(bags * n, features.shape[1]).index_put((mask.flatten(),), features)
                return features.view(bags, n, features.shape[1])
        features = self.encoder(zero_out_padding(x.flatten(2), mask).view(x.shape).flatten(0, 1))
        return features.view(bags, n, features.shape[1])

    def aggregate(self, features: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs for bags of encoded instances, features (B, N, F)."""
        output: BagOutput = self.aggregator.forward_bag(features, mask)
        return output

    def _encode_valid(self, valid: Tensor) -> Tensor:
        """Encode instances (n, C, H, W); without any, encode a blank one to get the number of features."""
        if len(valid):
            return self._encode_instances(valid)
        return self._encode_instances(torch.cat([valid, valid.new_zeros((1, *valid.shape[1:]))]))[:0]

    def _encode_instances(self, x: Tensor) -> Tensor:
        if self.chunk_size == 0:
            return self._encode_chunk(x)
        chunks: List[Tensor] = []
        for chunk in x.split(self.chunk_size):
            chunks.append(self._encode_chunk(chunk))
        return torch.cat(chunks)

    def _encode_chunk(self, x: Tensor) -> Tensor:
        recompute = self.recompute and self.training and torch.is_grad_enabled()
        features = checkpoint(self.encoder, x, use_reentrant=False) if recompute else self.encoder(x)
        if features.ndim != 2 or len(features) != len(x):
            raise ValueError(f"`encoder` must give (n, F) for {len(x)} instances, got {tuple(features.shape)}.")
        return features


def _valid_instances(x: Tensor, mask: Optional[Tensor]) -> Optional[Tensor]:
    """Return the valid instances (n, C, H, W) of bags (B, N, C, H, W); ``None`` if the mask has no values.

    It has none on the device ``meta``, under ``FakeTensorMode`` and under ``torch.func.vmap``.
    """
    instances = x.flatten(0, 1)
    if mask is None:
        return instances
    try:
        return instances[mask.flatten()]
    except RuntimeError:
        return None
