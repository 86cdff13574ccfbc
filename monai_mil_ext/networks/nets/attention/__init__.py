"""Networks with attention pooling."""

from .abmil import ABMIL
from .acmil import ACMIL
from .additive import AdditiveMIL
from .asmil import ASMIL
from .clam import CLAM
from .dsmil import DSMIL
from .dtfd import DTFDMIL

__all__ = [
    "ABMIL",
    "ACMIL",
    "ASMIL",
    "CLAM",
    "DSMIL",
    "DTFDMIL",
    "AdditiveMIL",
]
