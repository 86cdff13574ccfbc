"""Tissue on the thumbnail of a slide, found by colors or by a segmentation network; its names are those of slides."""

__all__: list[str] = []
