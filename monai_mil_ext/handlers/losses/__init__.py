"""Handlers that change the loss or the gradients of a trainer."""

from .attention_anchor import AttentionAnchorHandler
from .attention_prior import AttentionPriorHandler
from .auxiliary_loss import AuxiliaryLossHandler
from .branch_losses import BranchLossHandler
from .ema_teacher import EMATeacher
from .gradient_clip import GradientClipHandler
from .hidden_instances import HiddenInstances
from .instance_loss import InstanceLossHandler
from .masked_hard_instances import MaskedHardInstanceHandler
from .proximal_l1 import ProximalL1Handler
from .score_hook import ScoreHook
from .teacher_handler import TeacherHandler

__all__ = [
    "AttentionAnchorHandler",
    "AttentionPriorHandler",
    "AuxiliaryLossHandler",
    "BranchLossHandler",
    "EMATeacher",
    "GradientClipHandler",
    "HiddenInstances",
    "InstanceLossHandler",
    "MaskedHardInstanceHandler",
    "ProximalL1Handler",
    "ScoreHook",
    "TeacherHandler",
]
