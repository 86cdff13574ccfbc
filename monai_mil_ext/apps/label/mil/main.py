"""The app `mil` of MONAI Label: its code is in monai_mil_ext, and its bundles in `model/` beside this file."""

from monai_mil_ext.apps.label.app import LabelApp

__all__ = ["LabelApp"]
