"""Studies: from the items of a cohort to predictions, models and a report, with the provenance of each result."""

from .clinical import Clinical
from .folds import FoldPlan
from .methods import StudyMethod, parse_methods
from .models import StudyModel, read_study_model, write_study_model
from .pictures import ScanPictures, SlidePictures
from .predictions import Predictions
from .provenance import check_packages, collect_provenance, describe_machine, package_versions, read_commit
from .runs import Run, RunsFailedError, StudyRunner, parse_part, write_line
from .selection import Selection
from .study import Study, StudyOptions
from .tasks import Task, as_names
from .training import TrainedFold, TrainingSettings, train_bag_network

__all__ = [
    "Clinical",
    "FoldPlan",
    "Predictions",
    "Run",
    "RunsFailedError",
    "ScanPictures",
    "Selection",
    "SlidePictures",
    "Study",
    "StudyMethod",
    "StudyModel",
    "StudyOptions",
    "StudyRunner",
    "Task",
    "TrainedFold",
    "TrainingSettings",
    "as_names",
    "check_packages",
    "collect_provenance",
    "describe_machine",
    "package_versions",
    "parse_methods",
    "parse_part",
    "read_commit",
    "read_study_model",
    "train_bag_network",
    "write_line",
    "write_study_model",
]
