"""The real instances of all bags side by side, for what treats instances one by one: padding then costs nothing."""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor

__all__ = ["RealRows", "find_real_rows", "spread_rows", "take_rows"]

# padding, in rows a bag, below which one more call for each bag costs more: measured for 64 to 512 features on a CPU;
# where a call is a launch and rows are cheap it is an estimate
ROWS_A_BAG = 8
ROWS_A_LAUNCH = 256


class RealRows(NamedTuple):
    """Where the M real instances of a padded batch stand.

    Attributes:
        places: (M,), their indices among the B N slots, bag after bag.
        sizes: how many of them each bag has that has any.
    """

    places: Tensor
    sizes: List[int]


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
    sizes = mask.sum(1)
    counts: List[int] = [size for size in sizes.tolist() if size > 0]
    if not counts or mask.numel() - sum(counts) < least:
        return None
    return RealRows(mask.flatten().nonzero().squeeze(1), counts)


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
