"""Keys that name the parts of a bag in data dictionaries and in feature files, and what every result says."""

from __future__ import annotations

from monai.utils import StrEnum

__all__ = ["RESEARCH_USE", "BagKeys"]

RESEARCH_USE = "research use only"  # every result says so


class BagKeys(StrEnum):
    """Keys of one bag; they extend :py:class:`monai.utils.CommonKeys` (``image``, ``label``, ``pred``).

    Per instance, first axis N: ``position`` (mm along the normal of the slices), ``validity`` (False for a slice that
    shows nothing), ``slice_index`` (place in the stack, 0 = lowest position), ``instance_label``, ``attention``. Per
    bag: ``mask`` (N,), ``affine`` (4, 4) and ``spatial_shape`` (3,) of the scan's own voxel array, ``case_id`` and
    ``patient``.
    """

    MASK = "mask"
    ATTENTION = "attention"
    POSITION = "position"
    VALIDITY = "validity"
    SLICE_INDEX = "slice_index"
    INSTANCE_LABEL = "instance_label"
    AFFINE = "affine"
    SPATIAL_SHAPE = "spatial_shape"
    CASE_ID = "case_id"
    PATIENT = "patient"
