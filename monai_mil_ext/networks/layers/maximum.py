"""Maximum of each feature over the instances of a bag, without padding."""

from typing import Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["masked_max"]


def masked_max(h: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    r"""Return the maximum of each feature over the valid instances, and the fraction of maxima of each instance.

    .. math:: z_e = \max_n h_{ne}, \quad a_n = \frac{1}{E} \sum_e [n = \operatorname{argmax}_k h_{ke}]

    The first of equal instances counts. Values at padding affect neither the result nor gradients.

    Args:
        h: instances (B, N, E).
        mask: mask (B, N), True for a valid instance; ``None`` if all are valid.

    Returns:
        Maxima (B, E) in the dtype of ``h``, and fractions (B, N, 1) in float32 or float64, which sum to one over N.
        Both are zero for a bag without valid instances.

    Example:
        >>> import torch
        >>> values, fraction = masked_max(torch.tensor([[[1.0, 5.0], [2.0, 3.0], [9.0, 9.0]]]),
        ...                               torch.tensor([[True, True, False]]))
        >>> values.tolist(), fraction.flatten().tolist()
        ([[2.0, 5.0]], [0.5, 0.5, 0.0])
    """
    bags, instances, size = h.shape
    masked = h if mask is None else h.masked_fill(~mask.unsqueeze(-1), float("-inf"))
    # an additional last row of minus infinity: it wins in an empty bag only, where a maximum over nothing would raise
    values, index = functional.pad(masked, [0, 0, 0, 1], value=float("-inf")).max(1)
    not_empty = index < instances if mask is None else mask.any(1, keepdim=True)
    values = torch.where(not_empty, values, torch.zeros_like(values))
    counts = torch.zeros([bags, instances + 1], dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
    ones = torch.where(not_empty, torch.full_like(index, 1, dtype=counts.dtype), 0.0)
    counts = counts.scatter_add(1, index, ones)[:, :instances]
    return values, (counts / size).unsqueeze(-1)
