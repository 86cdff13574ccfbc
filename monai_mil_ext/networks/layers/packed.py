"""Packed batches: valid instances of all bags concatenated, so that per-instance layers skip padding."""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor

from monai_mil_ext.utils import is_on_host

from .masked import attention_pool

__all__ = ["PackedLayout", "pack", "packed_layout", "pool_packed", "split_packed", "unpack"]

# rows of padding per bag below which packing, with its one attention call per bag, is slower than computing padding:
# measured on a CPU for 64 to 512 features
MIN_PADDING = 8
# rows of a part beyond which a CPU gains nothing more, and spends time on allocating memory
MAX_ROWS_CPU = 4096


class PackedLayout(NamedTuple):
    """Layout of a packed batch: the indices of the M valid instances of a padded batch.

    Attributes:
        indices: indices (M,) of the valid instances among all B N instances, bag after bag.
        sizes: number of valid instances of each non-empty bag.
        bags: indices of the non-empty bags.
    """

    indices: Tensor
    sizes: List[int]
    bags: List[int]


def packed_layout(mask: Optional[Tensor], packing: Optional[bool] = None) -> Optional[PackedLayout]:
    """Return the packed layout of ``mask`` (B, N) if packing is faster than computing padding, else ``None``.

    The layout depends on the values of the mask, so it is ``None`` while a program is traced, exported or compiled, and
    for a mask without values: on the device ``meta``, under ``FakeTensorMode`` and under ``torch.func.vmap``.

    Args:
        mask: mask (B, N).
        packing: whether to pack at all; ``None`` packs on a CPU only, since on a GPU the program would wait for the
            values of the mask.

    Example:
        >>> packed_layout(torch.arange(1000) < torch.tensor([[1000], [2]])).sizes
        [1000, 2]
    """
    if mask is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    if packing is False or (packing is None and not is_on_host(mask)):
        return None
    min_padding = MIN_PADDING * mask.shape[0]
    if mask.numel() <= min_padding:  # decided without waiting for the values of the mask
        return None
    try:
        counts: List[int] = mask.sum(1).tolist()
    except RuntimeError:  # a mask without values: on the device `meta`, under FakeTensorMode or torch.func.vmap
        return None
    bags = [bag for bag, count in enumerate(counts) if count > 0]
    if not bags or mask.numel() - sum(counts) < min_padding:
        return None
    return PackedLayout(mask.flatten().nonzero().squeeze(1), [counts[bag] for bag in bags], bags)


def split_packed(layout: PackedLayout) -> List[PackedLayout]:
    """Split a layout into parts of whole bags with a limited number of rows; on a GPU, keep it whole.

    A part exceeds the limit only if it is a single bag.

    Example:
        >>> layout = packed_layout(torch.arange(9000) < torch.tensor([[9000], [7], [5]]))
        >>> [part.sizes for part in split_packed(layout)]
        [[9000], [7, 5]]
    """
    if layout.indices.device.type != "cpu":
        return [layout]
    parts: List[PackedLayout] = []
    first, start, stop = 0, 0, 0
    for bag, size in enumerate(layout.sizes):
        if stop > start and stop + size - start > MAX_ROWS_CPU:
            parts.append(PackedLayout(layout.indices[start:stop], layout.sizes[first:bag], layout.bags[first:bag]))
            first, start = bag, stop
        stop += size
    parts.append(PackedLayout(layout.indices[start:], layout.sizes[first:], layout.bags[first:]))
    return parts


def pack(x: Tensor, layout: PackedLayout) -> Tensor:
    """Pack instances (B, N, F) to (1, M, F); values at padding affect neither the result nor gradients."""
    return x.flatten(0, 1).index_select(0, layout.indices).unsqueeze(0)


def unpack(h: Tensor, layout: Optional[PackedLayout], like: Tensor) -> Tensor:
    """Unpack instances (1, M, E) to the padded shape (B, N, E) of ``like`` (B, N, F), with zeros at padding.

    Without a layout, return ``h`` itself.

    Example:
        >>> x, mask = torch.rand(2, 99, 3), torch.rand(2, 99) < 0.1
        >>> layout = packed_layout(mask)
        >>> torch.equal(unpack(pack(x, layout), layout, x), x * mask.unsqueeze(-1))
        True
    """
    if layout is None:
        return h
    rows = h.new_zeros([like.shape[0] * like.shape[1], h.shape[2]]).index_copy(0, layout.indices, h[0])
    return rows.view(like.shape[0], like.shape[1], h.shape[2])


def pool_packed(attention: Tensor, h: Tensor, layout: Optional[PackedLayout]) -> Tensor:
    """Pool packed instances ``h`` (1, M, E) with attention (B, N, H) to (B, H, E), see :py:func:`attention_pool`.

    An empty bag gets zeros. Without a layout, ``h`` is (B, N, E).

    Example:
        >>> x, mask = torch.rand(3, 99, 4), torch.arange(99) < torch.tensor([[50], [0], [9]])
        >>> attention, layout = torch.rand(3, 99, 2) * mask.unsqueeze(-1), packed_layout(mask)
        >>> torch.allclose(pool_packed(attention, pack(x, layout), layout), pool_packed(attention, x, None))
        True
    """
    if layout is None:
        return attention_pool(attention, h)
    weights = pack(attention, layout).split(layout.sizes, 1)
    parts: List[Tensor] = []
    for i, part in enumerate(h.split(layout.sizes, 1)):
        parts.append(attention_pool(weights[i], part))
    pooled = torch.cat(parts)
    bags = torch.tensor(layout.bags, device=pooled.device)
    zeros = pooled.new_zeros([attention.shape[0], attention.shape[2], h.shape[2]])
    return zeros.index_copy(0, bags, pooled)
