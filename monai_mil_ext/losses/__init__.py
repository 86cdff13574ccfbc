"""Losses on tensors."""

from .attention_loss import AttentionLoss
from .normal_guidance import NormalGuidanceLoss

__all__ = ["AttentionLoss", "NormalGuidanceLoss"]
