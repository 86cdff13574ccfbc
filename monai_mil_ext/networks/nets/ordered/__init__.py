"""Networks that use the order of instances."""

from .markov_mil import MarkovMIL
from .recurrent import RecurrentMIL
from .smooth_attention import SmAP, SmTP
from .window_mil import WindowMIL

__all__ = [
    "MarkovMIL",
    "RecurrentMIL",
    "SmAP",
    "SmTP",
    "WindowMIL",
]
