"""Chunked inference on bags that are too large to be encoded, or kept in memory, at once."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from monai_mil_ext.networks.nets import BagOutput, BagOutputWrapper, EncodedBag
from monai_mil_ext.utils import check_mask, check_positive, optional_dependency

from .chunked_pooling import pools_in_chunks, start_forward
from .instance_rows import InstanceRows, cast

__all__ = ["BagInferer"]

POOLED_ON_CPU = 4096  # most instances that are pooled at once on a CPU, whose cache they then stay in

tqdm = optional_dependency("", "tqdm", "tqdm")


class BagInferer(Inferer):
    """Inferer that encodes instances in chunks and aggregates them once, with the same result as the network.

    A network with the methods ``encode`` and ``aggregate``, such as :py:class:`EncodedBag`, encodes one chunk of valid
    instances at a time, on the device and in the dtype of its ``encoder``. A chunk that does not fit into memory is
    halved. Only the features are kept; they are moved to the device of the ``aggregator`` at the end.

    A network on features that pools by attention (:py:class:`AttentionPoolNet`, such as ``ABMIL`` and ``ASMIL``, also
    in an ensemble) gets a bag of more than one chunk in chunks too, with a softmax that runs over them. The whole
    projected bag never exists, which saves memory and, on a CPU, time. Any other network (one with attention among
    instances, one with forward hooks, MONAI's ``MILModel``, any callable) receives the whole bag, on its device and in
    its dtype.

    The bag itself may be on the CPU, in float16, or in a file that is read one chunk at a time. With ``device: cpu`` in
    MONAI's evaluator and a network on the GPU, it stays on the CPU. In training mode, or with gradients enabled, the
    network is called directly: :py:class:`EncodedBag` has its own chunks for that case. Chunked inference bypasses
    wrappers (DDP, ``torch.compile``); compile the encoder instead.

    Args:
        chunk_size: number of instances to encode, or to pool, at once; ``None`` means as many as fit into
            ``chunk_bytes``, and of those that are pooled on a CPU at most 4,096.
        chunk_bytes: size of a chunk at the input of the encoder; the activations take a multiple of it.
        device: device of the features while they are collected; ``None`` means that of the aggregator.
        amp_dtype: dtype of autocast, after which outputs are converted to float32; ``None`` keeps the autocast state of
            the caller. It works on every device and in training, whereas ``amp=True`` of MONAI's engines is for CUDA
            alone and does nothing on a CPU.
        progress: whether to show a progress bar.

    Raises:
        ValueError: when a size is not positive, the input is not a batch of bags, the mask has the wrong shape, or a
            batch is padded and the network takes no mask.

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
        """Return ``network(inputs, mask, *args, **kwargs)``; see :py:class:`InstanceRows` for ``inputs``."""
        rows = InstanceRows(inputs)
        if mask is not None:
            check_mask(mask, torch.empty(rows.bags, rows.instances, device="meta"))
        net, wants_dict = _unwrap(network)
        # the flag of the inner network, since that of a new wrapper is always True
        call_directly = torch.is_grad_enabled() or getattr(net, "training", False)
        if not call_directly and hasattr(net, "encode") and hasattr(net, "aggregate"):
            output = self._aggregate(self._encode(rows, net, mask), net, mask, wants_dict, *args, **kwargs)
        elif not (call_directly or args or kwargs) and self._pools(rows, net, network, self.chunk_size):
            output = self._pool(rows, net, mask, wants_dict, self.chunk_size)
        else:
            return self._call(rows, network, net, mask, *args, **kwargs)
        found = {name: value for name, value in output._asdict().items() if value is not None}
        result = found if wants_dict else output.logits
        return result if self.amp_dtype is None else _widened(result)

    def _aggregate(
        self, features: Tensor, net: Any, mask: Tensor | None, keep_instances: bool, *args: Any, **kwargs: Any
    ) -> BagOutput:
        """Return the output for encoded instances (B, N, F)."""
        aggregator = getattr(net, "aggregator", net)
        features = features.to(_device_of(aggregator, features))
        rows = InstanceRows(features)
        if not (args or kwargs) and type(net) is EncodedBag and self._pools(rows, aggregator, net, None):
            return self._pool(rows, aggregator, mask, keep_instances, None)  # `chunk_size` is that of the encoder
        with self._autocast(features.device):
            output: BagOutput = net.aggregate(
                features, None if mask is None else mask.to(features.device), *args, **kwargs
            )
        return output

    def _pools(self, rows: InstanceRows, net: Any, network: Any, size: int | None) -> bool:
        """Return whether there is more than one chunk, and the network gives its output from chunks."""
        if not pools_in_chunks(net, network):
            return False
        return len(rows) > (size or self._pooled_size(rows, _first_weight(net)))

    def _pooled_size(self, rows: InstanceRows, weight: Tensor | None) -> int:
        size = self._size_in_bytes(rows, weight)
        return min(size, POOLED_ON_CPU) if weight is None or weight.device.type == "cpu" else size

    def _pool(
        self, rows: InstanceRows, net: Any, mask: Tensor | None, keep_instances: bool, size: int | None
    ) -> BagOutput:
        """Return the output of a network that pools by attention, without attention and scores if nobody wants them."""
        weight = _first_weight(net)
        if mask is not None and mask.device.type == "cpu" and mask.all():  # without padding nothing has to be zeroed
            mask = None
        step = max(1, (size or self._pooled_size(rows, weight)) // rows.bags)
        forward = start_forward(net, rows.instances, keep_instances)
        with tqdm(total=len(rows), unit="instance", disable=not self.progress) as bar:
            device = _device_of(net, rows.part(0, 0))
            with self._autocast(device):  # one, which keeps the weights in its dtype from chunk to chunk
                for start in range(0, rows.instances, step):
                    stop = min(start + step, rows.instances)
                    part = None if mask is None else mask[:, start:stop].to(device)
                    forward.update(cast(rows.part(start, stop), weight), part)
                    bar.update(rows.bags * (stop - start))
                return forward.finish()

    def _call(
        self, rows: InstanceRows, network: Callable[..., Any], net: Any, mask: Tensor | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Call the network on the whole batch."""
        weight = _first_weight(net)
        x = rows.whole(weight, self._chunk_size(rows, weight))
        masks: tuple[Tensor, ...] = ()
        if mask is not None and _takes_mask(net):
            masks = (mask.to(x.device),)
        elif mask is not None and not mask.all():
            raise ValueError(f"`network` must take a mask for a padded batch, got {type(net).__name__}.")
        elif args:
            raise ValueError(f"`mask` must be given where more arguments follow it, got none before {len(args)}.")
        with self._autocast(x.device):
            output = network(x, *masks, *args, **kwargs)
        return output if self.amp_dtype is None else _widened(output)

    def _encode(self, rows: InstanceRows, net: Any, mask: Tensor | None) -> Tensor:
        """Return features (B, N, F), zero at padding."""
        weight = _first_weight(getattr(net, "encoder", net))
        mask = None if mask is None else mask.flatten().cpu()
        features: Tensor | None = None
        start, step = 0, self._chunk_size(rows, weight)
        with tqdm(total=len(rows), unit="instance", disable=not self.progress) as bar:
            while features is None or start < len(rows):  # an empty batch is encoded too, for the number of features
                stop = min(start + step, len(rows))
                index = torch.arange(start, stop)
                index = index if mask is None else index[mask[start:stop]]
                if features is None or len(index):
                    chunk = rows.read(start, stop)
                    encoded = self._encode_chunk(net, chunk if mask is None else chunk[index - start], weight)
                    if encoded is None:
                        step = (stop - start) // 2
                        warnings.warn(f"a chunk must fit into memory: continuing with {step} instances", stacklevel=3)
                        continue
                    if features is None:
                        device = self.device or _device_of(getattr(net, "aggregator", net), encoded)
                        features = encoded.new_zeros((len(rows), encoded.shape[1]), device=device)
                    features[index] = encoded.to(features.device)
                bar.update(stop - start)
                start = stop
        return features.view(rows.bags, rows.instances, features.shape[1])

    def _encode_chunk(self, net: Any, chunk: Tensor, weight: Tensor | None) -> Tensor | None:
        """Return features (n, F), or ``None`` if memory is short and the chunk can be halved."""
        try:
            x = cast(chunk, weight).unsqueeze(0)
            with self._autocast(x.device):
                features: Tensor = net.encode(x).squeeze(0)
            return features
        except RuntimeError as error:
            if len(chunk) < 2 or not _out_of_memory(error):
                raise
        # outside the handler, since the traceback keeps the tensors of the failed attempt alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _chunk_size(self, rows: InstanceRows, weight: Tensor | None) -> int:
        return self._size_in_bytes(rows, weight) if self.chunk_size is None else self.chunk_size

    def _size_in_bytes(self, rows: InstanceRows, weight: Tensor | None) -> int:
        """Return the number of instances that fit into ``chunk_bytes``."""
        sample = cast(rows.read(0, min(1, len(rows))), weight)
        return max(1, self.chunk_bytes // max(1, math.prod(sample.shape[1:]) * sample.element_size()))

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.amp_dtype is None else torch.autocast(device.type, self.amp_dtype)


def _widened(output: Any) -> Any:
    """Convert tensors of less than 32 bits, alone or in a dictionary, to float32, in which losses are computed."""
    if isinstance(output, dict):
        return {name: _widened(value) for name, value in output.items()}
    if isinstance(output, Tensor) and output.is_floating_point() and output.element_size() < 4:
        return output.float()
    return output


def _unwrap(network: Any) -> tuple[Any, bool]:
    """Return the network inside its wrappers, and whether one of them returns all outputs as a dictionary."""
    wants_dict = False
    while True:
        if isinstance(network, (DataParallel, DistributedDataParallel)):
            network = network.module
        elif hasattr(network, "_orig_mod"):  # the wrapper of torch.compile has no public class
            network = network._orig_mod
        elif isinstance(network, BagOutputWrapper):
            network, wants_dict = network.net, True
        else:
            return network, wants_dict


def _first_weight(network: Any) -> Tensor | None:
    """Return a floating-point weight of the network, whose device and dtype are those of its input."""
    weights = network.parameters() if isinstance(network, nn.Module) else ()
    return next((p for p in weights if p.is_floating_point()), None)


def _device_of(network: Any, default: Tensor) -> torch.device:
    weight = _first_weight(network)
    return default.device if weight is None else weight.device


def _takes_mask(network: Any) -> bool:
    if isinstance(network, torch.jit.ScriptModule):
        schema: Any = network.forward
        return any(argument.name == "mask" for argument in schema.schema.arguments)
    return "mask" in inspect.signature(getattr(network, "forward", network)).parameters


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
