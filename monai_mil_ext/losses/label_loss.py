"""Base class of losses on logits and bag labels: precision, checks and the reduction."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_mil_ext.utils import check_choice, check_values

__all__ = ["LabelLoss"]


class LabelLoss(_Loss):
    """Base class of losses of logits (B, K) against labels.

    A subclass computes its values from :py:meth:`float_logits` and passes them to :py:meth:`reduce`.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: when ``reduction`` is unknown.
    """

    def __init__(self, reduction: str = "mean") -> None:
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        super().__init__(reduction=reduction)

    def float_logits(self, logits: Tensor) -> Tensor:
        """Check logits (B, K) and convert them to float32 (float64 stays)."""
        if logits.ndim != 2 or not logits.is_floating_point() or not logits.shape[1]:
            got = f"{logits.dtype} {tuple(logits.shape)}"
            raise ValueError(f"`logits` must be floating point of shape (B, K) with K >= 1, got {got}.")
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def class_indices(self, name: str, label: Tensor, logits: Tensor, largest: int) -> Tensor:
        """Return ``label`` of any dtype as integers (B, 1), checked to be from 0 to ``largest``."""
        if label.shape != logits.shape[:1]:
            raise ValueError(f"`{name}` must have shape (B,) = ({len(logits)},), got {tuple(label.shape)}.")
        values = label.float()
        invalid = ~((values >= 0) & (values <= largest) & (values == values.floor()))  # NaN is invalid too
        rule = f"`{name}` must be whole numbers from 0 to {largest}"
        check_values(~invalid, lambda: f"{rule}, got {values[invalid][0].item()}.")
        return values.long().unsqueeze(1)

    def time_and_event(self, time: Tensor, event: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return ``time`` (B,) and ``event`` (B,), which are the columns of ``time`` (B, 2) if ``event`` is None."""
        if event is not None:
            return time, event
        if time.ndim != 2 or time.shape[1] != 2:
            raise ValueError(f"`time` must have shape (B, 2) if `event` is None, got {tuple(time.shape)}.")
        return time[:, 0], time[:, 1]

    def known_labels(self, label: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels (B, C) in the dtype of the logits, with 0 for NaN, and a mask (B, C) that is False for NaN.

        Labels may have the shape (B,) if C = 1.
        """
        if label.ndim == 1 and logits.shape[1] == 1:
            label = label.unsqueeze(1)
        if label.shape != logits.shape:
            raise ValueError(f"`label` must have shape (B, C) = {tuple(logits.shape)}, got {tuple(label.shape)}.")
        y = label.to(logits.dtype)
        known = ~y.isnan()
        return y.masked_fill(~known, 0.0), known

    def reduce(self, loss: Tensor, known: Tensor | None = None) -> Tensor:
        """Reduce a loss over its ``known`` entries, to 0 if there are none; ``"none"`` returns it unchanged."""
        if known is not None:
            loss = loss.masked_fill(~known, 0.0)
        if self.reduction == "none":
            return loss
        if self.reduction == "sum":
            return loss.sum()
        return loss.sum() / (max(1, loss.numel()) if known is None else known.sum().clamp(min=1))
