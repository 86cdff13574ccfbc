"""Loss functions on attention, scores and logits."""

from .attention_entropy import AttentionEntropyLoss
from .attention_loss import AttentionLoss, GuidanceLoss
from .branch_diversity import BranchDiversityLoss
from .branch_loss import BranchLoss
from .clam_instance_loss import CLAMInstanceLoss
from .cox import CoxLoss
from .kernel_guidance import KernelGuidanceLoss
from .label_loss import LabelLoss
from .multi_label import MultiLabelLoss
from .normal_guidance import NormalGuidanceLoss
from .nsf_kl import NSFKLLoss
from .ordinal import OrdinalLoss, ordinal_probabilities
from .regression import RegressionLoss
from .smooth_svm import SmoothSVMLoss
from .survival import DiscreteSurvivalLoss, survival_curve

__all__ = [
    "AttentionEntropyLoss",
    "AttentionLoss",
    "BranchDiversityLoss",
    "BranchLoss",
    "CLAMInstanceLoss",
    "CoxLoss",
    "DiscreteSurvivalLoss",
    "GuidanceLoss",
    "KernelGuidanceLoss",
    "LabelLoss",
    "MultiLabelLoss",
    "NSFKLLoss",
    "NormalGuidanceLoss",
    "OrdinalLoss",
    "RegressionLoss",
    "SmoothSVMLoss",
    "ordinal_probabilities",
    "survival_curve",
]
