"""Ground floor: names of keys and checks of what callers pass in."""

from .checks import check_bags, check_choice, check_mask, check_name, check_positive
from .enums import BagKeys

__all__ = ["BagKeys", "check_bags", "check_choice", "check_mask", "check_name", "check_positive"]
