"""Viewers of scans and slides: folders with a page that opens from disk."""

from .scan_viewer import write_scan_viewer
from .slide_viewer import SlideView, write_slide_viewer
from .sprite_sheets import SpriteSheets, write_sprite_sheets
from .viewer_folder import remove_viewer, viewer_pictures

__all__ = [
    "SlideView",
    "SpriteSheets",
    "remove_viewer",
    "viewer_pictures",
    "write_scan_viewer",
    "write_slide_viewer",
    "write_sprite_sheets",
]
