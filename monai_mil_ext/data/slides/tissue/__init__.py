"""Tissue on the thumbnail of a slide, found by colors or by a segmentation network."""

from .otsu_tissue import OtsuTissue
from .segmenter_tissue import SegmenterTissue
from .tissue_map import TissueLabel, TissueMap, find_tissue, tissue_fraction

__all__ = [
    "OtsuTissue",
    "SegmenterTissue",
    "TissueLabel",
    "TissueMap",
    "find_tissue",
    "tissue_fraction",
]
