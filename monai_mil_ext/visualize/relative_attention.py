"""Attention relative to uniform attention, on one scale and in the same colors for all pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.data.slides.heatmap_files import LARGEST_RATIO
from monai_mil_ext.utils import optional_dependency

from ._style import HEAT

__all__ = [
    "EVEN_NOTE",
    "EVEN_RATIO",
    "RATIO_LIMITS",
    "attention_ratio",
    "describe_ratio",
    "is_nearly_even",
    "ratio_colors",
    "ratio_norm",
    "ratio_text",
]

matplotlib = optional_dependency("figures", "matplotlib")
LogNorm = optional_dependency("figures", "matplotlib.colors", "LogNorm")

RATIO_LIMITS = (1 / LARGEST_RATIO, LARGEST_RATIO)  # ends of the color scale, which is logarithmic: 1 is its middle
EVEN_RATIO = 1.5  # attention whose highest ratio is below is nearly even
ROUNDING = 1e-6  # of attention as float32: a ratio of 1.4999999 reaches the limit
EVEN_NOTE = "Attention is nearly even: the order of slices says little."


def attention_ratio(attention: Any) -> NDArray[np.float64]:
    """Return how many times uniform attention each of N instances has: N times its part of the sum.

    A ratio of 1 means that the network gave an instance as much as if it had chosen nothing.

    Example:
        >>> attention_ratio([0.5, 0.25, 0.25, 0.0]).tolist()
        [2.0, 1.0, 1.0, 0.0]
    """
    values = np.asarray(attention, dtype=float)
    total = values.sum()
    return values * (len(values) / total) if total > 0 else np.ones_like(values)


def is_nearly_even(attention: Any) -> bool:
    """Return whether no instance has 1.5 times uniform attention, so that the order of instances says little.

    Example:
        >>> is_nearly_even([0.3, 0.3, 0.4]), is_nearly_even([0.2, 0.2, 0.6])
        (True, False)
    """
    return bool(attention_ratio(attention).max(initial=0) < EVEN_RATIO * (1 - ROUNDING))


def describe_ratio(attention: Any) -> str:
    """Describe the highest ratio to uniform attention in a line for pictures.

    Example:
        >>> describe_ratio([0.1, 0.2, 0.7])
        'attention: at most 2.1 x uniform'
        >>> describe_ratio([0.3, 0.3, 0.4])
        'attention: at most 1.2 x uniform, so nearly even: its order says little'
    """
    even = ", so nearly even: its order says little" if is_nearly_even(attention) else ""
    return f"attention: at most {attention_ratio(attention).max():.3g} x uniform{even}"


def ratio_norm() -> Any:
    """Return the norm of matplotlib from ratios to the fixed color scale, which is clipped at ``RATIO_LIMITS``."""
    return LogNorm(*RATIO_LIMITS, clip=True)


def ratio_colors(ratio: Any) -> NDArray[np.uint8]:
    """Return the colors (N, 3) of ratios (N,) on the fixed scale."""
    colors = matplotlib.colormaps[HEAT](ratio_norm()(np.asarray(ratio, dtype=float)))
    return np.round(np.asarray(colors)[..., :3] * 255).astype(np.uint8)


def ratio_text(ratio: float) -> str:
    """Return a ratio with about two digits.

    Example:
        >>> ratio_text(0.964), ratio_text(0.9999), ratio_text(2.44), ratio_text(12.3)
        ('0.96', '1.0', '2.4', '12')
    """
    if ratio < 0.995:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"
