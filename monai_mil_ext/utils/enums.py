"""Keys of bags in data dictionaries and feature files, and constants that results share."""

from __future__ import annotations

from monai.utils import StrEnum

__all__ = ["RESEARCH_USE", "BagKeys", "BagStatus"]

RESEARCH_USE = "research use only"  # written into every result


class BagKeys(StrEnum):
    """Keys of a bag, in addition to those of :py:class:`monai.utils.CommonKeys` (``image``, ``label``, ``pred``).

    Per instance, first axis N: ``position`` (mm along the normal of the slices), ``validity`` (False for a blank
    slice), ``slice_index`` (index in the stack, 0 = lowest position), ``instance_label``, ``attention``, ``scores``
    (N,) (the weights that results show), and ``coords`` (N, 2) (upper left corners of tiles).

    Per bag: ``mask`` (N,), ``affine`` (4, 4) and ``spatial_shape`` (3,) of the scan's own voxel array (or width and
    height of a slide), ``grid_shape`` (3,) of the tokens of a volume, ``tile_size`` in the ``unit`` of the
    coordinates, ``slide_mpp`` (micrometers per pixel of level 0), ``bounds`` (4,) of a slide (x, y, width and height of
    its scanned part, to which viewers crop it, in pixels of level 0), ``source`` (path of the scan or slide),
    ``series`` (UID, description or number, if a DICOM folder has several) and ``stack`` (number or name, if a series
    has several), ``plane`` of the slices of a scan, ``window`` (text on the window or normalization of their values),
    ``case_id``, ``patient``, ``status`` and ``source_check`` (whether the bag comes from the source that a model was
    trained on). In an item that is not loaded yet: ``input_error`` (why the row of a table can't be used).

    In the metadata of a scan: ``modality`` (of DICOM only), ``lowest`` and ``highest`` value as loaded, ``container``
    (kind of file or folder), ``notes`` (list of sentences: what was left out, filled or resampled while reading),
    ``instance_number`` (Z,) of DICOM slices along the third axis, and of an irregular series ``slice_position`` (Z, 3)
    in RAS mm of the first voxel of each slice, with their ``slice_thickness`` (Z,) in mm, 0 if unknown. A bag has
    ``container``, ``notes`` (sentences joined by ``"; "``) and ``instance_number`` (N,) too; one that can't be used has
    the ``option`` that would help, if there is one.

    Results: ``score_source`` (head or class whose attention the scores are, or ``"mean"``), ``score_volume`` (1, X,
    Y, Z) of a scan, ``heatmap`` (1, h, w) of a slide, or ``heatmap_missing`` (the reason for its absence),
    ``thumbnail`` (h, w, 3) of a slide with its ``thumbnail_downsample`` and ``thumbnail_origin`` (x, y),
    ``pictures_missing`` (the reason for the absence of pixels of the slide), ``top`` and ``bottom`` (k,) (indices of
    the instances with the highest and the lowest scores), ``top_tiles`` and ``bottom_tiles`` (k, t, t, 3) (their
    pixels).
    """

    MASK = "mask"
    ATTENTION = "attention"
    POSITION = "position"
    VALIDITY = "validity"
    SLICE_INDEX = "slice_index"
    INSTANCE_LABEL = "instance_label"
    COORDS = "coords"
    TILE_SIZE = "tile_size"
    UNIT = "unit"
    SLIDE_MPP = "slide_mpp"
    BOUNDS = "bounds"
    AFFINE = "affine"
    SPATIAL_SHAPE = "spatial_shape"
    GRID_SHAPE = "grid_shape"
    SOURCE = "source"
    SERIES = "series"
    STACK = "stack"
    PLANE = "plane"
    WINDOW = "window"
    MODALITY = "modality"
    CONTAINER = "container"
    NOTES = "notes"
    OPTION = "option"
    INSTANCE_NUMBER = "instance_number"
    SLICE_POSITION = "slice_position"
    SLICE_THICKNESS = "slice_thickness"
    CASE_ID = "case_id"
    PATIENT = "patient"
    INPUT_ERROR = "input_error"
    STATUS = "status"
    SOURCE_CHECK = "source_check"
    SCORES = "scores"
    SCORE_SOURCE = "score_source"
    SCORE_VOLUME = "score_volume"
    HEATMAP = "heatmap"
    HEATMAP_MISSING = "heatmap_missing"
    THUMBNAIL = "thumbnail"
    THUMBNAIL_DOWNSAMPLE = "thumbnail_downsample"
    THUMBNAIL_ORIGIN = "thumbnail_origin"
    PICTURES_MISSING = "pictures_missing"
    TOP = "top"
    BOTTOM = "bottom"
    TOP_TILES = "top_tiles"
    BOTTOM_TILES = "bottom_tiles"


class BagStatus(StrEnum):
    """Values of ``status``; that of a bag that failed for another reason is a sentence that names the reason."""

    DONE = "done"
    EMPTY = "empty"
