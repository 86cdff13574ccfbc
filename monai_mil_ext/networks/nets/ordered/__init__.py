"""Networks that use the order of instances."""

from .smooth_attention import SmAP, SmTP
from .window_mil import WindowMIL

__all__ = [
    "SmAP",
    "SmTP",
    "WindowMIL",
]
