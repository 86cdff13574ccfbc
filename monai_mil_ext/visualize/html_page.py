"""Self-contained HTML page for the prediction of a scan."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE

from .slice_scores import plot_axis, plot_slice, rank_slices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["scan_page"]

Array = np.ndarray[Any, Any]
STYLE = """
body { font-family: sans-serif; margin: 1.5rem auto; max-width: 60rem; color: #111; background: #fff; }
figure { display: inline-block; margin: 0 .4rem .6rem 0; text-align: center; font-size: .85rem; }
figure img { height: 11rem; } .axis { width: 100%; } td { padding: 0 1rem 0 0; }
footer { color: #666; font-size: .85rem; }
"""


def scan_page(
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None = None,
    top_k: int = 4,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    slice_index: Array | None = None,
) -> str:
    """Render the prediction for a scan as HTML: slices with most and least attention, side view, heat map and curve.

    Images are embedded as PNG. Opening the page loads no other file and runs no script.

    Args:
        attention: attention weights (N,) of the slices, which sum to 1.
        position: positions (N,) along the slice normal in mm, ascending.
        slices: images (N, h, w) in [0, 1].
        reference: reference masks (N, h, w) or labels (N,).
        top_k: number of slices with the most and with the least attention; no slice is shown twice.
        title: heading of the page.
        facts: rows of a table below the heading.
        slice_index: indices (N,) of the slices in the scan, for their captions; by default 0 to N - 1.

    Returns:
        The page as HTML.

    Raises:
        ValueError: if the arrays differ in length, or ``top_k`` is not positive.
    """
    top = rank_slices(attention, position, slices, reference, top_k)
    numbers = np.arange(len(attention)) if slice_index is None else slice_index
    rest = np.argsort(attention, kind="stable")[: min(top_k, len(attention) - len(top))]
    axis = _image(plot_axis(attention, position, slices, reference, top), "attention along the axis", "axis")
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in (facts or {}).items())

    def strip(indices: Iterable[int]) -> str:
        return "".join(_slice(int(i), int(numbers[i]), attention, position, slices, reference) for i in indices)

    least = f"<h2>Least attention</h2>{strip(rest)}" if len(rest) else ""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1><table>{rows}</table>"
        f"<h2>Most attention</h2>{strip(top)}<h2>Along the axis</h2>{axis}{least}"
        f"<footer>{RESEARCH_USE}</footer></body></html>\n"
    )


def _slice(i: int, number: int, attention: Array, position: Array, slices: Array, reference: Array | None) -> str:
    slice_reference = None if reference is None else reference[i]
    note = ", reference" if slice_reference is not None and slice_reference.any() else ""
    caption = f"slice {number}, {position[i]:.1f} mm<br>attention {attention[i]:.3f}{note}"
    picture = _image(plot_slice(slices[i], slice_reference), f"slice {number}")
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _image(figure: Figure, text: str, css_class: str = "slice") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{css_class}" alt="{html.escape(text)}" src="data:image/png;base64,{code}">'
