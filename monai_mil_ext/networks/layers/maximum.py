"""The largest value of every feature over the instances of a bag."""

from typing import Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["masked_max"]


def masked_max(h: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    r"""Maximum of each feature over the real instances, and what share of the features each instance gives.

    .. math:: z_e = \max_n h_{ne}, \quad a_n = \frac{1}{E} \sum_e [n = \operatorname{argmax}_k h_{ke}]

    The first of equal instances counts. What stands at padding reaches neither values nor gradients.

    Args:
        h: (B, N, E).
        mask: (B, N), True for a real instance; ``None`` if all are real.

    Returns:
        (B, E) of the type of ``h``, and (B, N, 1) in float32 or float64, which sums to one over N. Both are zero for a
        bag with no real instance.

    Example:
        >>> import torch
        >>> values, share = masked_max(torch.tensor([[[1.0, 5.0], [2.0, 3.0], [9.0, 9.0]]]),
        ...                            torch.tensor([[True, True, False]]))
        >>> values.tolist(), share.flatten().tolist()
        ([[2.0, 5.0]], [0.5, 0.5, 0.0])
    """
    bags, instances, size = h.shape
    lowest = h if mask is None else h.masked_fill(~mask.unsqueeze(-1), float("-inf"))
    # a last row below everything: it wins in an empty bag only, where a maximum over nothing would raise
    values, winner = functional.pad(lowest, [0, 0, 0, 1], value=float("-inf")).max(1)
    real = winner < instances if mask is None else mask.any(1, keepdim=True)
    values = torch.where(real, values, torch.zeros_like(values))
    share = torch.zeros([bags, instances + 1], dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
    one = torch.where(real, torch.full_like(winner, 1, dtype=share.dtype), 0.0)
    share = share.scatter_add(1, winner, one)[:, :instances] / size
    return values, share.unsqueeze(-1)
