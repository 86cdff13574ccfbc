"""Applications built on the package; ``apps.label`` and ``apps.study`` are imported only on use."""

from . import bundle

__all__ = ["bundle"]
