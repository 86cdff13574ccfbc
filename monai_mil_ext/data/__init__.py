"""Reading, writing and batching of bags, scans, slides and cohorts."""

from . import bags, cohorts, features, models, scans, slides, synthetic
from .bags import *
from .cells import CellImages
from .cohorts import *
from .features import *
from .models import *
from .scans import *
from .slides import *
from .synthetic import *

__all__ = [
    "CellImages",
]
__all__ += bags.__all__
__all__ += cohorts.__all__
__all__ += features.__all__
__all__ += models.__all__
__all__ += scans.__all__
__all__ += slides.__all__
__all__ += synthetic.__all__
