"""Networks with attention pooling."""

from .abmil import ABMIL
from .acmil import ACMIL
from .asmil import ASMIL

__all__ = [
    "ABMIL",
    "ACMIL",
    "ASMIL",
]
