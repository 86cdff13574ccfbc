"""Networks in which instances attend to one another."""

from .qgmil import QGMIL
from .qgmil_block import QGMILBlock
from .transmil import SequenceTransMIL, TransMIL

__all__ = [
    "QGMIL",
    "QGMILBlock",
    "SequenceTransMIL",
    "TransMIL",
]
