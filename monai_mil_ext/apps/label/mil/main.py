"""MONAI Label app ``mil``, implemented in ``monai_mil_ext.apps.label``, with its bundles in ``model/`` beside it."""

from monai_mil_ext.apps.label.app import LabelApp

__all__ = ["LabelApp"]
