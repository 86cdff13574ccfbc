"""Networks that use the order of instances."""

from .recurrent import RecurrentMIL
from .smooth_attention import SmAP, SmTP
from .window_mil import WindowMIL

__all__ = [
    "RecurrentMIL",
    "SmAP",
    "SmTP",
    "WindowMIL",
]
