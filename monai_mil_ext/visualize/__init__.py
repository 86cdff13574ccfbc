"""Figures of bags and their attention."""

from .attention_curves import plot_attention_mass, plot_attention_stability
from .cine import write_cine
from .gallery import plot_cell_gallery, plot_tile_montage, write_cell_gallery, write_tile_montage
from .html_page import scan_page
from .index_page import write_index
from .relative_attention import attention_ratio, is_nearly_even
from .slice_display import SliceDisplay
from .slice_scores import plot_slice_scores
from .slide_overlay import plot_slide_overlay, write_slide_overlay
from .tissue_preview import plot_tissue_preview, write_tissue_preview, write_tissue_previews
from .viewer import SlideView, remove_viewer, viewer_pictures, write_scan_viewer, write_slide_viewer

__all__ = [
    "SliceDisplay",
    "SlideView",
    "attention_ratio",
    "is_nearly_even",
    "plot_attention_mass",
    "plot_attention_stability",
    "plot_cell_gallery",
    "plot_slice_scores",
    "plot_slide_overlay",
    "plot_tile_montage",
    "plot_tissue_preview",
    "remove_viewer",
    "scan_page",
    "viewer_pictures",
    "write_cell_gallery",
    "write_cine",
    "write_index",
    "write_scan_viewer",
    "write_slide_overlay",
    "write_slide_viewer",
    "write_tile_montage",
    "write_tissue_preview",
    "write_tissue_previews",
]
