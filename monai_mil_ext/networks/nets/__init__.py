"""MIL networks, one paper per module."""

from .attention import ABMIL, ACMIL, ASMIL
from .bag_net import BagNet, BagOutput, BagOutputWrapper
from .coral import CORAL
from .encoded_bag import EncodedBag
from .ordered import SmAP, SmTP, WindowMIL
from .pooling import CenterPrior, InstanceConvMIL, InstanceMaxMIL, MaxMIL, MeanMIL
from .received_attention import ReceivedAttentionWrapper
from .reference_weights import load_reference_state_dict
from .transformers import QGMIL, QGMILBlock, SequenceTransMIL, TransMIL

__all__ = [
    "ABMIL",
    "ACMIL",
    "ASMIL",
    "CORAL",
    "QGMIL",
    "BagNet",
    "BagOutput",
    "BagOutputWrapper",
    "CenterPrior",
    "EncodedBag",
    "InstanceConvMIL",
    "InstanceMaxMIL",
    "MaxMIL",
    "MeanMIL",
    "QGMILBlock",
    "ReceivedAttentionWrapper",
    "SequenceTransMIL",
    "SmAP",
    "SmTP",
    "TransMIL",
    "WindowMIL",
    "load_reference_state_dict",
]
