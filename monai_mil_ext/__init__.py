"""Multiple-instance learning for MONAI; importing the package makes every public component known to bundles."""

from . import apps, data, handlers, inferers, losses, metrics, networks, transforms, utils, visualize

__all__ = ["apps", "data", "handlers", "inferers", "losses", "metrics", "networks", "transforms", "utils", "visualize"]
__version__ = "0.2.0.dev0"
