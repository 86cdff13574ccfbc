"""MIL networks, one paper per module."""

from .abmil import ABMIL
from .acmil import ACMIL
from .asmil import ASMIL
from .bag_net import BagNet, BagOutput, WithBagOutput
from .center_prior import CenterPrior
from .coral import CORAL
from .encoded_bag import EncodedBag
from .instance_conv import InstanceConvMIL
from .pooling import InstanceMaxMIL, MaxMIL, MeanMIL
from .qgmil import QGMIL
from .qgmil_block import QGMILBlock
from .received import WithReceivedAttention
from .reference_weights import load_reference_state_dict
from .smooth import SmAP, SmTP
from .transmil import SequenceTransMIL, TransMIL
from .window_mil import WindowMIL

__all__ = [
    "ABMIL",
    "ACMIL",
    "ASMIL",
    "CORAL",
    "QGMIL",
    "BagNet",
    "BagOutput",
    "CenterPrior",
    "EncodedBag",
    "InstanceConvMIL",
    "InstanceMaxMIL",
    "MaxMIL",
    "MeanMIL",
    "QGMILBlock",
    "SequenceTransMIL",
    "SmAP",
    "SmTP",
    "TransMIL",
    "WindowMIL",
    "WithBagOutput",
    "WithReceivedAttention",
    "load_reference_state_dict",
]
