"""A MONAI Label app on the bundles of this package; it needs ``monailabel``, which it imports only to be run."""

from .app import LabelApp
from .batch import TolerantBatch
from .scan_answer import ScanAnswer
from .scan_training import ScanTraining
from .served_bundle import ServedBundle
from .slice_view import SliceViewd
from .slide_answer import SlideAnswer
from .uncertainty import MostUncertainFirst, UncertaintyScoring

__all__ = [
    "LabelApp",
    "MostUncertainFirst",
    "ScanAnswer",
    "ScanTraining",
    "ServedBundle",
    "SliceViewd",
    "SlideAnswer",
    "TolerantBatch",
    "UncertaintyScoring",
]
