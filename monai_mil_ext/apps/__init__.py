"""Applications on top of the package; MONAI Label and studies are imported only where they are used."""

from . import bundle

__all__ = ["bundle"]
