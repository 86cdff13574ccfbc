"""Studies: resumable runs of many trainings and evaluations, with the provenance of each result."""

from .folds import FoldPlan
from .predictions import Predictions
from .provenance import collect_provenance, describe_machine, package_versions, read_commit
from .runs import Run, RunsFailedError, StudyRunner, parse_part, write_line
from .selection import Selection
from .tasks import Task

__all__ = [
    "FoldPlan",
    "Predictions",
    "Run",
    "RunsFailedError",
    "Selection",
    "StudyRunner",
    "Task",
    "collect_provenance",
    "describe_machine",
    "package_versions",
    "parse_part",
    "read_commit",
    "write_line",
]
