"""App `mil` of MONAI Label: its code is in monai_mil_ext, and its bundles are in `model/` next to this file."""

from monai_mil_ext.apps.label.app import LabelApp

__all__ = ["LabelApp"]
