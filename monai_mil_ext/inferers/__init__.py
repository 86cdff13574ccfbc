"""Running networks on bags, whatever their size."""

from .bag_inferer import BagInferer
from .instance_rows import InstanceRows

__all__ = ["BagInferer", "InstanceRows"]
