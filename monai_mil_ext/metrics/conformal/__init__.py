"""Sets of instances that hold a positive one with a stated probability, by split conformal prediction."""

from .conformal_instances import ConformalInstances, InstanceSet
from .site_coverage import set_coverage

__all__ = ["ConformalInstances", "InstanceSet", "set_coverage"]
