"""Viewer of a scan: a folder with a page on which one scrolls through all slices, opened from disk."""

from .scan_viewer import remove_viewer, viewer_pictures, write_scan_viewer
from .sprite_sheets import SpriteSheets, write_sprite_sheets

__all__ = ["SpriteSheets", "remove_viewer", "viewer_pictures", "write_scan_viewer", "write_sprite_sheets"]
