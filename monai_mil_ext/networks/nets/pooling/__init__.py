"""Networks with fixed or instance-wise pooling."""

from .center_prior import CenterPrior
from .instance_conv import InstanceConvMIL
from .pooling_mil import InstanceMaxMIL, MaxMIL, MeanMIL

__all__ = [
    "CenterPrior",
    "InstanceConvMIL",
    "InstanceMaxMIL",
    "MaxMIL",
    "MeanMIL",
]
