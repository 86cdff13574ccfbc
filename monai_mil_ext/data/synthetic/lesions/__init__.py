"""Scans of a real anatomy with inserted lesions, whose place is known exactly."""

from .anatomy import Anatomy, read_anatomy
from .lesion_cohort import PlannedScan, plan_lesion_scans, write_lesion_cohort, write_lesion_scans
from .lesion_options import LesionOptions
from .lesion_scan import LesionScan, draw_lesion_scan

__all__ = [
    "Anatomy",
    "LesionOptions",
    "LesionScan",
    "PlannedScan",
    "draw_lesion_scan",
    "plan_lesion_scans",
    "read_anatomy",
    "write_lesion_cohort",
    "write_lesion_scans",
]
