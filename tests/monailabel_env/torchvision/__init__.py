"""Stands in for torchvision, of which there is no build for this torch: MONAI Label only draws with it."""

__version__ = "0.0"
