"""Mean of a loss over the branches of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import without_autocast

__all__ = ["BranchLoss"]


class BranchLoss(nn.Module):
    r"""Mean of a loss over K branches, each with its own logits and all with the same label.

    .. math:: L = \frac1K \sum_{k=1}^{K} \ell(y_{\cdot k}, \text{label})

    All computation is in float32 (float64 stays float64), also under autocast.

    Args:
        loss: loss :math:`\ell` of the logits (B, C) of one branch against the label; unreduced values are averaged.

    Raises:
        ValueError: when the logits have the wrong shape.

    References:
        Zhang et al., "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
        arXiv:2311.07125.

    Example:
        >>> logits, label = torch.tensor([[[9.0, -9.0], [0.0, 0.0]]]), torch.tensor([0])
        >>> round(BranchLoss(nn.CrossEntropyLoss())(logits, label).item(), 4)  # a confident and an undecided branch
        0.3466
    """

    def __init__(self, loss: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, label: Any) -> Tensor:
        """Compute the loss of logits (B, K, C) against a label in the form that ``loss`` takes."""
        if logits.ndim != 3 or not logits.is_floating_point() or not logits.shape[1]:
            got = f"{logits.dtype} {tuple(logits.shape)}"
            raise ValueError(f"`logits` must be floating point of shape (B, K, C) with K >= 1, got {got}.")
        with without_autocast(logits):
            y = logits.to(torch.promote_types(logits.dtype, torch.float32))
            if not len(y):
                return y.sum()  # zero, where the mean over no bags would be NaN
            return torch.stack([self.loss(branch, label).mean() for branch in y.unbind(1)]).mean()
