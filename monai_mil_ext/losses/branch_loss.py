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

    A branch whose logits are all minus infinity is missing, such as a pseudo-bag of a bag of few instances: its bag has
    the mean over the others, and a bag without branches has no term. All computation is in float32 (float64 stays
    float64), also under autocast.

    Args:
        loss: loss :math:`\ell` of the logits (B, C) of one branch against the label; unreduced values are averaged.

    Raises:
        ValueError: when the logits have the wrong shape, or a branch is missing and the label is no tensor.

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
            missing = (y == float("-inf")).all(2)
            if len(y) and not missing.any():
                return self._mean_over_branches(y, label)
            return self._mean_over_present(y, label, (~missing).sum(1))

    def _mean_over_branches(self, y: Tensor, label: Any) -> Tensor:
        return torch.stack([self.loss(branch, label).mean() for branch in y.unbind(1)]).mean()

    def _mean_over_present(self, y: Tensor, label: Any, counts: Tensor) -> Tensor:
        """Compute the mean over bags (B, K, C) whose first ``counts`` branches are present."""
        total = y.masked_fill(y == float("-inf"), 0.0).sum() * 0.0  # zero, where the mean over no bags would be NaN
        for count in counts.unique().tolist():
            bags = counts == count
            if count:
                if not isinstance(label, Tensor):
                    kind = type(label).__name__
                    raise ValueError(f"`label` must be a tensor if bags lack branches, got {kind}.")
                share = bags.sum() / (counts > 0).sum()
                total = total + share * self._mean_over_branches(y[bags, :count], label[bags])
        return total
