"""Mean of a loss over the branches of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_values, is_on_host, without_autocast

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
            if not len(y):
                return y.sum() * 0.0  # the mean over no bags would be NaN
            if not isinstance(label, Tensor):
                check_values(~missing, partial(_no_tensor, label))
            elif not is_on_host(y) or missing.any():  # without waiting for a device, branches may be missing
                return self._mean_over_present(y.masked_fill(missing.unsqueeze(2), 0.0), label, (~missing).sum(1))
            return self._mean(y.unbind(1), [1 / y.shape[1]] * y.shape[1], label)

    def _mean(self, batches: Iterable[Tensor], weights: Iterable[float], label: Any) -> Tensor:
        losses = [self.loss(logits, label).mean() * weight for logits, weight in zip(batches, weights, strict=True)]
        return torch.stack(losses).sum()

    def _mean_over_present(self, y: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        r"""Compute the mean over bags (B, K, C) whose first ``counts`` (B,) branches are present, without reading them.

        The loss takes whole batches, in which bag b has branch :math:`\lfloor u K_b \rfloor` of its :math:`K_b`; the
        mean over u in [0, 1) weighs the branches of each bag alike. An empty bag is replaced by the fullest one, whose
        loss is subtracted again.
        """
        middles, weights = _intervals(y.shape[1])
        batches = [_choose(y, (counts * middle).long()) for middle in middles]
        full, is_empty = counts.argmax().view(1), counts == 0
        rows = torch.where(is_empty, full, torch.arange(len(y), device=y.device))
        filled = self._mean([batch.index_select(0, rows) for batch in batches], weights, label.index_select(0, rows))
        same = full.expand(len(y))
        fullest = self._mean([batch.index_select(0, same) for batch in batches], weights, label.index_select(0, same))
        num_empty = is_empty.sum()
        return (len(y) * filled - num_empty * fullest) / (len(y) - num_empty).clamp(min=1)


def _choose(y: Tensor, index: Tensor) -> Tensor:
    """Return the logits (B, C) of one branch of each bag."""
    return y.gather(1, index.view(-1, 1, 1).expand(-1, 1, y.shape[2])).squeeze(1)


@lru_cache
def _intervals(branches: int) -> tuple[list[float], list[float]]:
    """Return middles and lengths of the intervals of [0, 1) on which no bag of so few branches changes its branch.

    Example:
        >>> _intervals(2)
        ([0.25, 0.75], [0.5, 0.5])
    """
    limits = sorted({Fraction(i, count) for count in range(1, branches + 1) for i in range(count + 1)})
    pairs = list(pairwise(limits))
    return [float((low + high) / 2) for low, high in pairs], [float(high - low) for low, high in pairs]


def _no_tensor(label: Any) -> str:
    return f"`label` must be a tensor if bags lack branches, got {type(label).__name__}."
