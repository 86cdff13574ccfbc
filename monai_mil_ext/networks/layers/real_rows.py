"""The real instances of all bags side by side, for what treats instances one by one: padding then costs nothing."""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor

from .masked import bag_pool

__all__ = ["RealRows", "find_real_rows", "pool_rows", "split_rows", "spread_rows", "take_rows"]

# padding, in rows a bag, below which one more call for each bag costs more: measured for 64 to 512 features on a CPU;
# where a call is a launch and rows are cheap it is an estimate
ROWS_A_BAG = 8
ROWS_A_LAUNCH = 256
# rows side by side beyond which a CPU gains nothing more, and loses what the system takes to hand out the memory
ROWS_AT_ONCE = 4096


class RealRows(NamedTuple):
    """Where the M real instances of a padded batch stand.

    Attributes:
        places: (M,), their indices among the B N slots, bag after bag.
        sizes: how many of them each bag has that has any.
        bags: which bags those are.
    """

    places: Tensor
    sizes: List[int]
    bags: List[int]


def find_real_rows(mask: Optional[Tensor]) -> Optional[RealRows]:
    """The real instances of ``mask`` (B, N), where leaving out the rest pays; else ``None``.

    It depends on values of the mask, so it never pays where a program is traced, exported or compiled for all of them.
    On a GPU it waits for the mask.

    Example:
        >>> find_real_rows(torch.arange(1000) < torch.tensor([[1000], [2]])).sizes
        [1000, 2]
    """
    if mask is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    least = (ROWS_A_BAG if mask.device.type == "cpu" else ROWS_A_LAUNCH) * mask.shape[0]
    if mask.numel() <= least:  # told without looking at the mask
        return None
    counts: List[int] = mask.sum(1).tolist()
    bags = [bag for bag, count in enumerate(counts) if count > 0]
    if not bags or mask.numel() - sum(counts) < least:
        return None
    return RealRows(mask.flatten().nonzero().squeeze(1), [counts[bag] for bag in bags], bags)


def split_rows(rows: RealRows) -> List[RealRows]:
    """The same in parts of whole bags; each is small enough, or a single bag, on a CPU, and everything on a GPU.

    Example:
        >>> rows = find_real_rows(torch.arange(9000) < torch.tensor([[9000], [7], [5]]))
        >>> [part.sizes for part in split_rows(rows)]
        [[9000], [7, 5]]
    """
    if rows.places.device.type != "cpu":
        return [rows]
    parts: List[RealRows] = []
    first, start, stop = 0, 0, 0
    for bag, size in enumerate(rows.sizes):
        if stop > start and stop + size - start > ROWS_AT_ONCE:
            parts.append(RealRows(rows.places[start:stop], rows.sizes[first:bag], rows.bags[first:bag]))
            first, start = bag, stop
        stop += size
    parts.append(RealRows(rows.places[start:], rows.sizes[first:], rows.bags[first:]))
    return parts


def take_rows(x: Tensor, rows: RealRows) -> Tensor:
    """The real ones (1, M, F) of instances (B, N, F); what stands at padding reaches neither values nor gradients."""
    return x.flatten(0, 1).index_select(0, rows.places).unsqueeze(0)


def spread_rows(h: Tensor, rows: Optional[RealRows], like: Tensor) -> Tensor:
    """What was made of the real instances (1, M, E), back in its slots (B, N, E) as in ``like`` (B, N, F).

    There are zeros at padding. ``h`` itself when there are no ``rows``.

    Example:
        >>> x, mask = torch.rand(2, 99, 3), torch.rand(2, 99) < 0.1
        >>> rows = find_real_rows(mask)
        >>> torch.equal(spread_rows(take_rows(x, rows), rows, x), x * mask.unsqueeze(-1))
        True
    """
    if rows is None:
        return h
    slots = h.new_zeros([like.shape[0] * like.shape[1], h.shape[2]]).index_copy(0, rows.places, h[0])
    return slots.view(like.shape[0], like.shape[1], h.shape[2])


def pool_rows(attention: Tensor, h: Tensor, rows: Optional[RealRows]) -> Tensor:
    """Weighted sums (B, H, E), see :py:func:`bag_pool`, with attention (B, N, H), of ``h`` that are the ``rows`` alone.

    A bag that has none gets zeros. Without ``rows``, ``h`` is (B, N, E).

    Example:
        >>> x, mask = torch.rand(3, 99, 4), torch.arange(99) < torch.tensor([[50], [0], [9]])
        >>> attention, rows = torch.rand(3, 99, 2) * mask.unsqueeze(-1), find_real_rows(mask)
        >>> torch.allclose(pool_rows(attention, take_rows(x, rows), rows), pool_rows(attention, x, None))
        True
    """
    if rows is None:
        return bag_pool(attention, h)
    weights = take_rows(attention, rows).split(rows.sizes, 1)
    parts: List[Tensor] = []
    for i, part in enumerate(h.split(rows.sizes, 1)):
        parts.append(bag_pool(weights[i], part))
    pooled = torch.cat(parts)
    bags = torch.tensor(rows.bags, device=pooled.device)
    zeros = pooled.new_zeros([attention.shape[0], attention.shape[2], h.shape[2]])
    return zeros.index_copy(0, bags, pooled)
