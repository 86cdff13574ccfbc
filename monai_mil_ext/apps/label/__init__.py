"""MONAI Label app of the bundles of this package; ``monailabel`` is needed only to run it."""

from .active_learning import BatchInfer, UncertaintyScoring, UncertaintyStrategy
from .app import LabelApp
from .bundle_runner import BundleRunner
from .label_map import ScoresToLabelMapd
from .mask_labels import MaskRule
from .scan_infer import ScanInferTask
from .scan_train import ScanTrainTask
from .slice_scoring import SliceScoring
from .slide_infer import SlideInferTask

__all__ = [
    "BatchInfer",
    "BundleRunner",
    "LabelApp",
    "MaskRule",
    "ScanInferTask",
    "ScanTrainTask",
    "ScoresToLabelMapd",
    "SliceScoring",
    "SlideInferTask",
    "UncertaintyScoring",
    "UncertaintyStrategy",
]
