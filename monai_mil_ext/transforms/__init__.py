"""Transforms of bags, scans and slides, in array and dictionary form."""

from . import bags, scans, slides
from .bags import *
from .scans import *
from .slides import *

__all__ = []
__all__ += bags.__all__
__all__ += scans.__all__
__all__ += slides.__all__
