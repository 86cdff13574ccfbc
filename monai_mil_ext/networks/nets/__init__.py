"""MIL networks, one paper per module."""

from . import attention, ordered, pooling, transformers
from .attention import *
from .attention_pool_net import AttentionPoolNet
from .bag_ensemble import BagEnsemble
from .bag_net import BagNet, BagOutput, BagOutputWrapper
from .contributions import ContributionWrapper
from .coral import CORAL
from .encoded_bag import EncodedBag
from .ordered import *
from .pooling import *
from .rebinned_survival import RebinnedSurvivalNet
from .received_attention import ReceivedAttentionWrapper
from .reference_weights import load_reference_state_dict
from .source_net import SourceNet
from .standardized_net import StandardizedNet
from .transformers import *

__all__ = [
    "AttentionPoolNet",
    "BagEnsemble",
    "BagNet",
    "BagOutput",
    "BagOutputWrapper",
    "CORAL",
    "ContributionWrapper",
    "EncodedBag",
    "RebinnedSurvivalNet",
    "ReceivedAttentionWrapper",
    "SourceNet",
    "StandardizedNet",
    "load_reference_state_dict",
]
__all__ += attention.__all__
__all__ += ordered.__all__
__all__ += pooling.__all__
__all__ += transformers.__all__
