"""Multiple-instance learning for MONAI: ``import monai_mil_ext`` makes every public component known to its bundles."""

from . import data, handlers, inferers, losses, metrics, networks, transforms, utils, visualize

__all__ = ["data", "handlers", "inferers", "losses", "metrics", "networks", "transforms", "utils", "visualize"]
__version__ = "0.2.0.dev0"
