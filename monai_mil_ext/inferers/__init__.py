"""Inference on bags of any size."""

from .bag_inferer import BagInferer
from .instance_rows import InstanceRows

__all__ = [
    "BagInferer",
    "InstanceRows",
]
