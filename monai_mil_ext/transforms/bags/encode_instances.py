"""Transforms that encode the instances of a bag with a frozen network."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_mil_ext.data import ChunkLoader
from monai_mil_ext.utils import EmptyBagError, check_count, check_positive

__all__ = ["EncodeInstances", "EncodeInstancesD", "EncodeInstancesDict", "EncodeInstancesd"]

logger = logging.getLogger(__name__)

BYTE = 255
LOG_INTERVAL = 10.0  # s
CHUNK = 32
CHUNK_ON_CPU = 4  # of a tensor: larger ones leave the caches, which makes a MobileNetV2 three times as slow
Bag = Tensor | Dataset[Tensor]


class EncodeInstances(Transform):
    """Encode a bag (N, ...) to float32 features (N, F) on the CPU, in evaluation mode and without gradients.

    The bag is a tensor or, like :py:class:`monai_mil_ext.data.SlideTiles`, a data set that returns a tensor for a
    slice of indices. Such a bag is never held in memory as a whole: worker processes read ahead while a chunk is
    encoded. Images of dtype uint8 are transferred to the device as bytes and scaled to [0, 1] there. A bag that takes
    long logs every ten seconds how many instances are done.

    Args:
        encoder: network that maps (n, ...) to (n, F); its training flags are restored afterwards.
        chunk_size: number of instances that are encoded at once; it limits memory and does not change the result.
            ``None`` means 32, but 4 for a tensor on a CPU, where a small network is up to three times as fast then.
        device: device to encode on; None uses the encoder's.
        num_workers: number of processes that read the chunks of a bag that is not a tensor; 0 reads in this process.

    Raises:
        ValueError: if the bag is empty, or the encoder does not return (n, F).

    Example:
        >>> tuple(EncodeInstances(nn.Flatten())(torch.rand(5, 1, 4, 4)).shape)
        (5, 16)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        encoder: nn.Module,
        chunk_size: int | None = None,
        device: str | torch.device | None = None,
        num_workers: int = 0,
    ) -> None:
        check_positive(chunk_size=CHUNK if chunk_size is None else chunk_size)
        check_count(num_workers=num_workers)
        self.encoder = encoder
        self.chunk_size = chunk_size
        self.device = None if device is None else torch.device(device)
        self.num_workers = num_workers

    def __call__(self, bag: Bag) -> Tensor:
        """Encode the instances of ``bag``."""
        return self.timed(bag)[0]

    def timed(self, bag: Bag) -> tuple[Tensor, float]:
        """Return the features and the time in seconds during which the encoder did not wait for instances."""
        if not len(bag) or (isinstance(bag, Tensor) and bag.ndim < 2):  # type: ignore[arg-type]
            got = tuple(bag.shape) if isinstance(bag, Tensor) else bag
            raise EmptyBagError(f"`bag` must have shape (N, ...) with an instance, got {got}.")
        device = self.device or next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        if isinstance(bag, Tensor):
            size = self.chunk_size or (CHUNK_ON_CPU if device.type == "cpu" else CHUNK)
            chunks = ChunkLoader(bag.as_tensor() if isinstance(bag, MetaTensor) else bag, size)
        else:
            chunks = ChunkLoader(bag, self.chunk_size or CHUNK, self.num_workers, pin_memory=device.type == "cuda")
        features, seconds = [], 0.0
        with _frozen(self.encoder.to(device)), torch.inference_mode():
            for chunk in _logged(chunks, len(bag)):  # type: ignore[arg-type]
                start = time.perf_counter()
                features.append(self._encode(chunk.to(device, non_blocking=True)))
                seconds += time.perf_counter() - start
        return torch.cat(features), seconds  # outside of inference mode, so that autograd can use the result

    def _encode(self, chunk: Tensor) -> Tensor:
        features = self.encoder(chunk.float() / BYTE if chunk.dtype == torch.uint8 else chunk)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(chunk):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"`encoder` must give features (n, F) of n = {len(chunk)} instances, got {got}.")
        return features.float().cpu()


def _logged(chunks: Iterable[Tensor], total: int) -> Iterator[Tensor]:
    """Yield chunks, and log in intervals how many of ``total`` instances have been encoded."""
    start = last = time.monotonic()
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        now = time.monotonic()
        if now - last >= LOG_INTERVAL and done < total:
            last = now
            remaining = (now - start) * (total - done) / done
            logger.info("Encoded %d of %d instances; about %.0f s remain.", done, total, remaining)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore the training flag of each single module afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class EncodeInstancesd(MapTransform):
    """Dictionary form of :py:class:`EncodeInstances`.

    For a bag that is read while it is encoded, ``encode_seconds`` is the time during which the encoder did not wait.

    Args:
        keys: bags (N, ...).
        encoder: see :py:class:`EncodeInstances`.
        chunk_size: see :py:class:`EncodeInstances`.
        device: see :py:class:`EncodeInstances`.
        num_workers: see :py:class:`EncodeInstances`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = EncodeInstances.backend

    def __init__(
        self,
        keys: KeysCollection,
        encoder: nn.Module,
        chunk_size: int | None = None,
        device: str | torch.device | None = None,
        num_workers: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.encode = EncodeInstances(encoder, chunk_size, device, num_workers)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encode the bag of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            bag = d[key]
            d[key], seconds = self.encode.timed(bag)
            if not isinstance(bag, Tensor):
                d["encode_seconds"] = d.get("encode_seconds", 0.0) + seconds
        return d


EncodeInstancesD = EncodeInstancesDict = EncodeInstancesd
