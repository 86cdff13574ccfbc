"""Colors, footer and file output shared by all figures."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from monai_mil_ext.utils import RESEARCH_USE, atomic_path

__all__ = ["ATTENTION", "HEAT", "REFERENCE", "SECONDARY", "save_figure", "sign"]

# distinguishable by color-blind readers; in grayscale, lines differ by being solid, dashed or dotted
ATTENTION, REFERENCE, SECONDARY = "#D55E00", "#0072B2", "#666666"
HEAT = "cividis"  # its lightness increases evenly, so it reads the same in grayscale


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
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Description": RESEARCH_USE})
    return Path(path)
