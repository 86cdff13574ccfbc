"""Turning the instances of a bag into vectors, by a frozen network."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor, nn

from monai_mil_ext.utils import EmptyBagError, check_positive

__all__ = ["EncodeInstances", "EncodeInstancesD", "EncodeInstancesDict", "EncodeInstancesd"]


class EncodeInstances(Transform):
    """Encode a bag (N, ...) to features (N, F), float32 on the CPU, in evaluation mode and without gradients.

    Args:
        encoder: maps (n, ...) to (n, F). It is used as it is; its training flags are put back.
        chunk_size: how many instances to encode at once; it bounds the memory and changes nothing else.
        device: where to encode; None leaves the encoder where it is.

    Raises:
        ValueError: when the bag is empty or the encoder gives anything but (n, F).

    Example:
        >>> tuple(EncodeInstances(nn.Flatten())(torch.rand(5, 1, 4, 4)).shape)
        (5, 16)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, encoder: nn.Module, chunk_size: int = 32, device: str | torch.device | None = None) -> None:
        check_positive(chunk_size=chunk_size)
        self.encoder = encoder
        self.chunk_size = chunk_size
        self.device = None if device is None else torch.device(device)

    def __call__(self, bag: Tensor) -> Tensor:
        """Encode the instances of ``bag``."""
        if bag.ndim < 2 or not len(bag):
            raise EmptyBagError(f"`bag` must have shape (N, ...) with an instance, got {tuple(bag.shape)}.")
        bag = bag.as_tensor() if isinstance(bag, MetaTensor) else bag
        device = self.device or next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        with _frozen(self.encoder.to(device)), torch.inference_mode():
            parts = [self._encode(chunk.to(device)) for chunk in bag.split(self.chunk_size)]
        return torch.cat(parts)  # outside, so that it may take part in autograd

    def _encode(self, chunk: Tensor) -> Tensor:
        features = self.encoder(chunk)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(chunk):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"`encoder` must give features (n, F) of n = {len(chunk)} instances, got {got}.")
        return features.float().cpu()


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module has the flag it had, those frozen one by one too."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class EncodeInstancesd(MapTransform):
    """Dictionary form of :py:class:`EncodeInstances`.

    Args:
        keys: bags (N, ...).
        encoder: see :py:class:`EncodeInstances`.
        chunk_size: see :py:class:`EncodeInstances`.
        device: see :py:class:`EncodeInstances`.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    backend = EncodeInstances.backend

    def __init__(
        self,
        keys: KeysCollection,
        encoder: nn.Module,
        chunk_size: int = 32,
        device: str | torch.device | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.encode = EncodeInstances(encoder, chunk_size, device)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encode the bag of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.encode(d[key])
        return d


EncodeInstancesD = EncodeInstancesDict = EncodeInstancesd
