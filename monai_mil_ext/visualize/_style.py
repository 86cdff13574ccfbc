"""Colors, footer and file output shared by all figures."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, optional_dependency

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = [
    "ATTENTION",
    "HEAT",
    "REFERENCE",
    "SECONDARY",
    "describe_ratio",
    "is_nearly_even",
    "new_figure",
    "ratio_norm",
    "save_figure",
    "sign",
]

matplotlib_colors = optional_dependency("figures", "matplotlib.colors")
matplotlib_figure = optional_dependency("figures", "matplotlib.figure")

# distinguishable by color-blind readers; in grayscale, lines differ by being solid, dashed or dotted
ATTENTION, REFERENCE, SECONDARY = "#D55E00", "#0072B2", "#666666"
NEARLY_EVEN = 1.5  # times uniform attention; below it, the order of instances says little
HEAT = "cividis"  # its lightness increases evenly, so it reads the same in grayscale


def new_figure(**options: Any) -> Figure:
    """Return an empty figure."""
    figure: Figure = matplotlib_figure.Figure(**options)
    return figure


def ratio_norm(vmax: float = 4.0) -> Normalize:
    """Return the scale of colors, logarithmic and the same in all figures, of ratios to uniform attention.

    It ranges from ``1 / vmax`` to ``vmax``, with uniform attention in the middle; other ratios have the colors of its
    ends.
    """
    norm: Normalize = matplotlib_colors.LogNorm(1 / vmax, vmax, clip=True)
    return norm


def describe_ratio(highest: float) -> str:
    """Describe the highest ratio to uniform attention in a line for pictures.

    Example:
        >>> describe_ratio(12.34), describe_ratio(1.2)
        ('attention: at most 12.3 x uniform', 'attention: at most 1.2 x uniform, so nearly even: its order says little')
    """
    even = ", so nearly even: its order says little" if is_nearly_even(highest) else ""
    return f"attention: at most {highest:.3g} x uniform{even}"


def is_nearly_even(highest: float) -> bool:
    """Return whether attention is nearly even: no instance has as much as 1.5 times uniform attention."""
    return highest < NEARLY_EVEN


def sign(figure: Figure, title: str = "", note: str = "") -> Figure:
    """Add the title, a small note, such as the model, and the footer "research use only" to a figure, and return it."""
    figure.suptitle(title, fontsize=11)
    if note:
        width = int(12 * figure.get_figwidth())  # letters of a line
        figure.supxlabel("\n".join(textwrap.wrap(note, width)), fontsize=7, color=SECONDARY)
    figure.text(0.995, 0.004, RESEARCH_USE, ha="right", va="bottom", fontsize=7, color=SECONDARY)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 130) -> Path:
    """Write a figure atomically, with "research use only" in its metadata, and return the path."""
    is_jpeg = Path(path).suffix == ".jpg"
    options: dict[str, Any] = (
        {"pil_kwargs": {"comment": RESEARCH_USE}} if is_jpeg else {"metadata": {"Description": RESEARCH_USE}}
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=Path(path).suffix[1:], **options)
    return Path(path)
