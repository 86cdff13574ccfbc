"""Studies: resumable runs of many trainings and evaluations, with the provenance of each result."""

from .models import StudyModel, read_study_model, write_study_model
from .predictions import Predictions
from .provenance import collect_provenance, describe_machine, package_versions, read_commit
from .runs import Run, RunsFailedError, StudyRunner, parse_part, write_line
from .tasks import Task

__all__ = [
    "Predictions",
    "Run",
    "RunsFailedError",
    "StudyModel",
    "StudyRunner",
    "Task",
    "collect_provenance",
    "describe_machine",
    "package_versions",
    "parse_part",
    "read_commit",
    "read_study_model",
    "write_line",
    "write_study_model",
]
