"""Pictures of the cases in the report of a study: their slices or tiles with the attention of a network."""

from .case_attention import PICTURES, add_pictures, bag_attention, pictured_rows
from .scan_pictures import ScanPictures
from .slide_pictures import SlidePictures

__all__ = ["PICTURES", "ScanPictures", "SlidePictures", "add_pictures", "bag_attention", "pictured_rows"]
