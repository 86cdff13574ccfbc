"""Keys of a bag in data dictionaries and feature files, and the notice in all results."""

from __future__ import annotations

from monai.utils import StrEnum

__all__ = ["RESEARCH_USE", "BagKeys"]

RESEARCH_USE = "research use only"  # written into every result


class BagKeys(StrEnum):
    """Keys of a bag, in addition to those of :py:class:`monai.utils.CommonKeys` (``image``, ``label``, ``pred``).

    Per instance, with N on the first axis: ``position`` (mm along the normal of the slices), ``validity`` (False for a
    slice without content), ``slice_index`` (index in the stack, 0 = lowest position), ``instance_label``,
    ``attention``. Per bag: ``mask`` (N,), ``affine`` (4, 4) and ``spatial_shape`` (3,) of the voxel array of the scan,
    ``case_id`` and ``patient``.
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
