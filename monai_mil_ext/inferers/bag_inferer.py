"""Inference on bags that are too large to be encoded, or to be in memory, at once."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import optional_import
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from monai_mil_ext.networks.nets import WithBagOutput
from monai_mil_ext.utils import check_mask, check_positive

from .instance_rows import InstanceRows, cast

__all__ = ["BagInferer"]

tqdm, _ = optional_import("tqdm", name="tqdm")


class BagInferer(Inferer):
    """Encodes the instances of bags in chunks and aggregates them once; the result is that of the network itself.

    A network that has ``encode`` and ``aggregate``, as :py:class:`EncodedBag`, gets a chunk of instances at a time,
    real ones only, on the device and in the floating type of its ``encoder``. A chunk that does not fit into memory is
    halved. Its features are all that is kept, and go to the device of its ``aggregator`` at the end. Every other
    network (one on features, MONAI's ``MILModel``, any callable) gets the bag whole, on its device and in its type.

    The bag itself may lie elsewhere: on the CPU, in float16, or in a file of which a chunk at a time is read. Give
    MONAI's evaluator ``device: cpu`` and a network on the GPU, and it stays on the CPU. In training mode, or with
    gradients on, the network is called as it is: :py:class:`EncodedBag` has its own chunks for that. A wrapper (DDP,
    ``torch.compile``) is passed by in chunks; compile the encoder instead.

    Args:
        chunk_size: how many instances to encode at once; ``None`` for as many as ``chunk_bytes`` hold.
        chunk_bytes: size of a chunk as the encoder sees it; what the encoder needs beside is a multiple of that.
        device: where to keep features until all are there; ``None`` for where they will be aggregated.
        amp_dtype: type of autocast; ``None`` leaves it as it is around the inferer.
        progress: whether to show a bar.

    Raises:
        ValueError: when a size is not positive, the input is no batch of bags, the mask has the wrong shape, or a batch
            is padded and the network takes no mask.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL, EncodedBag
        >>> encoder = nn.Sequential(nn.Conv2d(3, 8, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net, bag = EncodedBag(encoder, ABMIL(in_features=8, num_classes=2)).eval(), torch.rand(1, 30, 3, 16, 16)
        >>> with torch.no_grad():
        ...     torch.allclose(BagInferer(chunk_size=8)(bag, net), net(bag), atol=1e-6)
        True
    """

    def __init__(
        self,
        chunk_size: int | None = None,
        chunk_bytes: int = 2**26,
        device: torch.device | str | None = None,
        amp_dtype: torch.dtype | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        check_positive(chunk_size=1 if chunk_size is None else chunk_size, chunk_bytes=chunk_bytes)
        self.chunk_size = chunk_size
        self.chunk_bytes = chunk_bytes
        self.device = None if device is None else torch.device(device)
        self.amp_dtype = amp_dtype
        self.progress = progress

    def __call__(
        self, inputs: Any, network: Callable[..., Any], mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """What ``network(inputs, mask, *args, **kwargs)`` gives; see :py:class:`InstanceRows` for ``inputs``."""
        rows = InstanceRows(inputs)
        if mask is not None:
            check_mask(mask, torch.empty(rows.bags, rows.instances, device="meta"))
        net, wants_parts = _unwrapped(network)
        as_it_is = torch.is_grad_enabled() or getattr(net, "training", False)  # a new wrapper's own flag is True
        if as_it_is or not (hasattr(net, "encode") and hasattr(net, "aggregate")):
            return self._call(rows, network, net, mask, *args, **kwargs)
        features = self._encode(rows, net, mask)
        features = features.to(_device_of(getattr(net, "aggregator", net), features))
        with self._autocast(features.device):
            output = net.aggregate(features, None if mask is None else mask.to(features.device), *args, **kwargs)
        if wants_parts:
            return {name: part for name, part in output._asdict().items() if part is not None}
        return output.logits

    def _call(
        self, rows: InstanceRows, network: Callable[..., Any], net: Any, mask: Tensor | None, *args: Any, **kwargs: Any
    ) -> Any:
        """The network's own forward on the whole batch."""
        weight = _weight(net)
        x = rows.whole(weight, self._chunk_size(rows, weight))
        masks: tuple[Tensor, ...] = ()
        if mask is not None and _takes_mask(net):
            masks = (mask.to(x.device),)
        elif mask is not None and not mask.all():
            raise ValueError(f"`network` must take a mask for a padded batch, got {type(net).__name__}.")
        elif args:
            raise ValueError(f"`mask` must be given where more arguments follow it, got none before {len(args)}.")
        with self._autocast(x.device):
            return network(x, *masks, *args, **kwargs)

    def _encode(self, rows: InstanceRows, net: Any, mask: Tensor | None) -> Tensor:
        """Features (B, N, F), zero at padding."""
        weight = _weight(getattr(net, "encoder", net))
        real = None if mask is None else mask.flatten().cpu()
        features: Tensor | None = None
        start, step = 0, self._chunk_size(rows, weight)
        with tqdm(total=len(rows), unit="instance", disable=not self.progress) as bar:
            while features is None or start < len(rows):  # a batch without instances is encoded too: it has a width
                stop = min(start + step, len(rows))
                kept = torch.arange(start, stop)
                kept = kept if real is None else kept[real[start:stop]]
                if features is None or len(kept):
                    chunk = rows.read(start, stop)
                    part = self._encode_chunk(net, chunk if real is None else chunk[kept - start], weight)
                    if part is None:
                        step = (stop - start) // 2
                        warnings.warn(f"a chunk must fit into memory: goes on with {step} instances", stacklevel=3)
                        continue
                    if features is None:
                        device = self.device or _device_of(getattr(net, "aggregator", net), part)
                        features = part.new_zeros((len(rows), part.shape[1]), device=device)
                    features[kept] = part.to(features.device)
                bar.update(stop - start)
                start = stop
        return features.view(rows.bags, rows.instances, features.shape[1])

    def _encode_chunk(self, net: Any, chunk: Tensor, weight: Tensor | None) -> Tensor | None:
        """Features (n, F), or ``None`` where memory is short and there is something to halve."""
        try:
            x = cast(chunk, weight).unsqueeze(0)
            with self._autocast(x.device):
                features: Tensor = net.encode(x).squeeze(0)
            return features
        except RuntimeError as error:
            if len(chunk) < 2 or not _out_of_memory(error):
                raise
        # out here the traceback, which holds on to the tensors of the attempt, is gone
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _chunk_size(self, rows: InstanceRows, weight: Tensor | None) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        one = cast(rows.read(0, min(1, len(rows))), weight)
        return max(1, self.chunk_bytes // max(1, math.prod(one.shape[1:]) * one.element_size()))

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.amp_dtype is None else torch.autocast(device.type, self.amp_dtype)


def _unwrapped(network: Any) -> tuple[Any, bool]:
    """The network inside its wrappers, and whether one of them asks for all of its output."""
    wants_parts = False
    while True:
        if isinstance(network, (DataParallel, DistributedDataParallel)):
            network = network.module
        elif hasattr(network, "_orig_mod"):  # what torch.compile makes has no public class
            network = network._orig_mod
        elif isinstance(network, WithBagOutput):
            network, wants_parts = network.net, True
        else:
            return network, wants_parts


def _weight(network: Any) -> Tensor | None:
    """A floating weight of the network, which tells where and in which type it works."""
    weights = network.parameters() if isinstance(network, nn.Module) else ()
    return next((p for p in weights if p.is_floating_point()), None)


def _device_of(network: Any, otherwise: Tensor) -> torch.device:
    weight = _weight(network)
    return otherwise.device if weight is None else weight.device


def _takes_mask(network: Any) -> bool:
    if isinstance(network, torch.jit.ScriptModule):
        schema: Any = network.forward
        return any(argument.name == "mask" for argument in schema.schema.arguments)
    return "mask" in inspect.signature(getattr(network, "forward", network)).parameters


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
