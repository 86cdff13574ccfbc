"""An image encoder and an aggregator as one network."""

from typing import List, Optional

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monai_mil_ext.networks.layers import zero_padding
from monai_mil_ext.utils import check_mask, check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["EncodedBag"]


class EncodedBag(BagNet):
    """Encodes the instances of bags (B, N, C, H, W) and aggregates the features: MONAI's ``MILModel`` with a mask.

    Only real instances reach the encoder, so padding costs nothing and moves no batch statistics. A compiled, exported
    or scripted network, whose shapes must not depend on what is in the mask, encodes padding as zeros and all instances
    at once. In chunks, batch norm in training mode sees a chunk at a time. The promises that it keeps are those of its
    aggregator.

    Args:
        encoder: instances (n, C, H, W), or of any other shape, to features (n, F).
        aggregator: bags of features (B, N, F) to the output.
        chunk_size: how many instances to encode at once; ``None`` for all.
        recompute: whether to keep no activation of the encoder in training and compute them again for the gradients:
            with ``chunk_size``, memory for one chunk instead of the whole batch, for about a third more time.

    Raises:
        ValueError: when ``chunk_size`` is not positive, the input has fewer than three axes, the mask is not (B, N) of
            ``torch.bool``, or the encoder gives anything but (n, F).

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
        self.score_tap = aggregator.score_tap  # one tap under two names
        self.chunk_size = 0 if chunk_size is None else chunk_size
        self.recompute = recompute
        self.permutation_invariant = aggregator.permutation_invariant
        self.attention_is_distribution = aggregator.attention_is_distribution
        self.exports_dynamic_n = aggregator.exports_dynamic_n
        self.gives_scores = aggregator.gives_scores

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Everything about bags (B, N, C, H, W); ``mask`` (B, N) is True for a real instance."""
        if not torch.jit.is_scripting():
            if x.ndim < 3:
                raise ValueError(f"`x` must have shape (B, N, C, H, W), got {tuple(x.shape)}.")
            if mask is not None:
                check_mask(mask, x)
        return self.aggregate(self.encode(x, mask), mask)

    def encode(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Features (B, N, F) of the instances of bags (B, N, C, H, W), zero at padding."""
        bags, n = x.shape[0], x.shape[1]
        instances = x.flatten(0, 1)
        if torch.jit.is_scripting() or torch.compiler.is_compiling():
            features = self.encoder(zero_padding(x.flatten(2), mask).view(x.shape).flatten(0, 1))
            return features.view(bags, n, features.shape[1])
        real = instances if mask is None else instances[mask.flatten()]
        if len(real):
            features = self._encode_instances(real)
        else:  # one blank instance, thrown away, tells how wide features are
            features = self._encode_instances(torch.cat([real, x.new_zeros((1, *x.shape[2:]))]))[:0]
        if mask is not None:
            features = features.new_zeros(bags * n, features.shape[1]).index_put((mask.flatten(),), features)
        return features.view(bags, n, features.shape[1])

    def aggregate(self, features: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Everything about bags whose instances are encoded, features (B, N, F)."""
        output: BagOutput = self.aggregator.forward_bag(features, mask)
        return output

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
