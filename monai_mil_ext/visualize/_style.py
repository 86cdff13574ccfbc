"""Colors, footer and file output shared by all figures."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, optional_dependency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ATTENTION",
    "HEAT",
    "REFERENCE",
    "SECONDARY",
    "new_figure",
    "save_figure",
    "sign",
]

matplotlib_figure = optional_dependency("figures", "matplotlib.figure")

# distinguishable by color-blind readers; in grayscale, lines differ by being solid, dashed or dotted
ATTENTION, REFERENCE, SECONDARY = "#D55E00", "#0072B2", "#666666"
HEAT = "cividis"  # its lightness increases evenly, so it reads the same in grayscale


def new_figure(**options: Any) -> Figure:
    """Return an empty figure."""
    figure: Figure = matplotlib_figure.Figure(**options)
    return figure


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
