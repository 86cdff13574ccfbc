"""Multiple-instance learning for MONAI; importing the package makes every public component known to bundles."""

import gc as _gc

_collects = _gc.isenabled()
_gc.disable()  # MONAI is a million objects and no garbage: to look for it takes a sixth of the time of the import
try:
    from . import apps, data, handlers, inferers, losses, metrics, networks, transforms, utils, visualize
finally:
    if _collects:
        _gc.enable()

__all__ = ["apps", "data", "handlers", "inferers", "losses", "metrics", "networks", "transforms", "utils", "visualize"]
__version__ = "0.2.0"
