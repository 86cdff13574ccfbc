"""Self-contained HTML page of the prediction for a scan."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE, optional_dependency

from .gray_windows import gray_windows
from .page_template import page_template, page_text
from .relative_attention import EVEN_NOTE, RATIO_LIMITS, attention_ratio, is_nearly_even, ratio_colors, ratio_text
from .slice_display import SliceDisplay
from .slice_scores import check_slices, shown_slices
from .stack_views import StackView, scale_length, slice_edges, stack_views

__all__ = ["Scan", "page_values", "scan_page", "slice_jpeg"]

Array = np.ndarray[Any, Any]
Scan = tuple[Array, Array, Array, Array | None]  # attention, position, slices, reference
Image = optional_dependency("", "PIL.Image")
contour_generator = optional_dependency("figures", "contourpy", "contour_generator")

MAX_PIXELS = 60 * 256 * 256  # of all slices together; more slices are shown smaller
MAX_SIDE, VIEW_SIDE = 512, 480  # of a slice and of a view, in pixels
MAX_BYTES = 1_100_000  # of the slices as JPEG; base64 adds a third
QUALITY = 80
OUTLINE_SIDES = (64, 256)  # fewest and most points along a side of a mask whose outline is drawn
STRIPE = 5  # pixels of a stripe where there is no slice


def scan_page(
    attention: Array,
    position: Array,
    slices: Array,
    reference: Array | None = None,
    top_k: int = 4,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    display: SliceDisplay | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """Render the prediction for a scan as an HTML page on which one scrolls through all slices.

    Slider, mouse wheel, arrow keys, the views of the stack and the curve of attention choose the slice. Heat and
    outlines can be switched off. Images are embedded as JPEG, smaller ones if there are many slices, so that the page
    stays below 2 MB. It loads no other file and works from a folder.

    Args:
        attention: attention weights (N,) of the slices, which sum to 1.
        position: positions (N,) along the slice normal in mm, ascending.
        slices: images (N, h, w) in [0, 1].
        reference: reference masks (N, h, w) or labels (N,).
        top_k: number of slices to list, see :py:func:`monai_mil_ext.visualize.plot_slice_scores`.
        title: heading of the page.
        facts: names and values to list, such as the model.
        display: letters, millimeters, numbers and window.
        links: names and relative addresses of files beside the page.

    Returns:
        The page as HTML.

    Raises:
        ValueError: if the arrays differ in length, or ``top_k`` is not positive.
    """
    check_slices(attention, position, slices, reference, top_k)
    display = display or SliceDisplay()
    slices, reference = display.crop(slices), display.crop(reference)
    pictures = _jpegs(slices, display)
    values = page_values((attention, position, slices, reference), pictures, top_k, title, facts, display, links)
    style, script = page_text("viewer/viewer.css"), page_text("viewer/viewer.js")
    return str(page_template("viewer/scan_page.html").render(**values, inline=True, style=style, script=script))


def page_values(
    scan: Scan,
    pictures: Sequence[str],
    top_k: int,
    title: str,
    facts: Mapping[str, str] | None,
    display: SliceDisplay,
    links: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return the values of the template ``scan_page.html``; ``data`` are those of its script.

    Args:
        scan: attention, position, slices and reference, cropped to the field of view.
        pictures: address (N,) of the picture of each slice.
        top_k: see :py:func:`scan_page`.
        title: see :py:func:`scan_page`.
        facts: see :py:func:`scan_page`.
        display: see :py:func:`scan_page`.
        links: see :py:func:`scan_page`.
    """
    attention, position, slices, reference = scan
    shown, is_ranked = shown_slices(attention, top_k)
    ratio = attention_ratio(attention)
    colors = _hex(ratio_colors(ratio))
    data = {
        "slices": _rows(scan, pictures, display),
        "curve": _curve(ratio, position, reference),
        "heat": _strip(position, colors),
        "first": int(shown[0]),
        "sheets": None,
        "planes": False,
        "windows": gray_windows(display.window),
        "key": _hex(ratio_colors(np.geomspace(*RATIO_LIMITS, 9))),
    }
    return {
        "data": data,
        "pictures": pictures,
        "title": title,
        "shown": shown.tolist(),
        "is_ranked": is_ranked,
        "facts": {**({"gray values": display.window} if display.window else {}), **(facts or {})},
        "links": links or {},
        "volume": "",
        "even_note": EVEN_NOTE if is_nearly_even(attention) else "",
        "has_reference": reference is not None and bool(reference.any()),
        "views": [_view(view) for view in stack_views(slices, position, display, reference)],
        "gradient": _gradient(position, colors),
        "use": RESEARCH_USE,
        **_slice_values(slices, display),
    }


def _slice_values(slices: Array, display: SliceDisplay) -> dict[str, Any]:
    """Return what the page needs to show slices: size and letters of all, and the length of the scale bar."""
    height, width = _size(slices.shape[1:], display)
    return {
        "size": {"width": width, "height": height, "rows": slices.shape[1], "columns": slices.shape[2]},
        "sides": display.sides,
        "scale": _scale(slices.shape[2], display),
    }


def _rows(scan: Scan, pictures: Sequence[str], display: SliceDisplay) -> list[dict[str, Any]]:
    """Return what the page shows of each slice."""
    attention, position, slices, reference = scan
    ratio = attention_ratio(attention)
    colors = _hex(ratio_colors(ratio))
    masks = reference if reference is not None and reference.ndim == 3 else None
    stride = _outline_stride(masks)
    return [
        {
            "src": pictures[i],
            "name": display.name(i, len(slices)),
            "place": display.place(i, position[i]),
            "ratio": f"{ratio_text(ratio[i])} × uniform",
            "attention": f"{attention[i]:.4f}",
            "color": colors[i],
            "reference": bool(reference is not None and reference[i].any()),
            "outline": "" if masks is None else _path(masks[i], stride),
        }
        for i in range(len(slices))
    ]


def _hex(colors: Array) -> list[str]:
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()]


def _size(shape: tuple[int, int], display: SliceDisplay) -> tuple[int, int]:
    """Return height and width of a slice in pixels of the screen, in true proportion."""
    height, width = display.pixel_mm or (1.0, 1.0)
    size = np.array([shape[0] * height, shape[1] * width])
    rows, columns = np.round(size * (MAX_SIDE / size.max())).astype(int).clip(1).tolist()
    return rows, columns


def _jpegs(slices: Array, display: SliceDisplay) -> list[str]:
    """Return the slices as data addresses; they are made smaller until they fit on the page."""
    rows, columns = _size(slices.shape[1:], display)
    stored = max(slices.shape[1:]) / max(rows, columns)
    zoom = min(1.0, stored, (MAX_PIXELS / (len(slices) * rows * columns)) ** 0.5)
    while True:
        size = max(1, round(columns * zoom)), max(1, round(rows * zoom))
        codes = [_jpeg(image, size) for image in slices]
        total = sum(map(len, codes))
        if total <= MAX_BYTES or max(size) <= 48:
            return [_address(code) for code in codes]
        zoom *= min(0.9, (MAX_BYTES / total) ** 0.5)


def slice_jpeg(image: Array, display: SliceDisplay, side: int = VIEW_SIDE) -> str:
    """Return a slice as a data address, at most ``side`` pixels wide and high, in true proportion."""
    rows, columns = _size(image.shape, display)
    zoom = min(1.0, side / max(rows, columns))
    return _address(_jpeg(image, (max(1, round(columns * zoom)), max(1, round(rows * zoom)))))


def _jpeg(image: Array, size: tuple[int, int]) -> bytes:
    """Return an image as JPEG; pixels that are NaN, where there is no slice, are striped."""
    missing, buffer = np.isnan(image), io.BytesIO()
    gray = Image.fromarray(np.round(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8))
    gray = gray.resize(size, Image.LANCZOS)
    if missing.any():
        stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) // STRIPE % 2 * 90 + 150
        gray.paste(Image.fromarray(stripes.astype(np.uint8)), mask=Image.fromarray(missing).resize(size, Image.NEAREST))
    gray.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _address(code: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(code).decode()}"


def _view(view: StackView) -> dict[str, Any]:
    """Return what the page shows of a view of the stack."""
    wide, high = view.size if view.is_to_scale else (1.0, 0.6)
    zoom = VIEW_SIDE / max(wide, high)
    size = max(1, round(wide * zoom)), max(1, round(high * zoom))
    return {
        "name": view.name,
        "src": _address(_jpeg(view.image, size)),
        "width": size[0],
        "height": size[1],
        "sides": view.sides,
        "upright": view.is_upright,
        "outline": "" if view.outline is None else _path(view.outline),
        "rows": view.image.shape[0],
        "columns": view.image.shape[1],
        "scale": scale_length(min(wide, 2 * high)) / wide if view.is_to_scale else 0,
        "mm": scale_length(min(wide, 2 * high)) if view.is_to_scale else 0,
    }


def _scale(columns: int, display: SliceDisplay) -> dict[str, float]:
    """Return the length of the scale bar of a slice in mm and as a part of its width; 0 if it is unknown."""
    if display.pixel_mm is None:
        return {"mm": 0, "part": 0}
    width = columns * display.pixel_mm[1]
    return {"mm": scale_length(width), "part": scale_length(width) / width}


def _outline_stride(masks: Array | None) -> int:
    """Return the step in pixels at which outlines follow masks (N, h, w), so that many of them fit on the page."""
    if masks is None:
        return 1
    longest = float(np.clip(OUTLINE_SIDES[1] * (60 / len(masks)) ** 0.5, *OUTLINE_SIDES))
    return int(np.ceil(max(masks.shape[1:]) / longest))


def _path(mask: Array, stride: int = 1) -> str:
    """Return the outline of a mask as the path of an SVG in steps of half a pixel; straight lines are one step."""
    padded = np.pad(mask[stride // 2 :: stride, stride // 2 :: stride] > 0, 1).astype(float)
    if not padded.any():
        return ""
    path = ""
    for line in contour_generator(z=padded).lines(0.5):
        points = np.round(2 * line - 1).astype(int)
        steps = np.diff(points, axis=0)
        begins = np.flatnonzero(np.append(True, (np.diff(steps, axis=0) != 0).any(axis=1)))
        joined = np.add.reduceat(steps, begins) * stride
        path += f"M{stride * points[0, 0]} {stride * points[0, 1]}l{' '.join(f'{x} {y}' for x, y in joined)}z"
    return path


def _parts(position: Array) -> tuple[Array, Array, Array]:
    """Return middles, and edges with their slices, as parts of the length of the stack from its lowest position."""
    edges, index = slice_edges(position)
    length = edges[-1] - edges[0]
    return (position - edges[0]) / length, (edges - edges[0]) / length, index


def _strip(position: Array, colors: list[str]) -> list[dict[str, Any]]:
    """Return the colored intervals of the heat along the stack."""
    _, edges, index = _parts(position)
    return [
        {"begin": round(float(a), 5), "end": round(float(b), 5), "color": colors[i]}
        for a, b, i in zip(edges[:-1], edges[1:], index, strict=True)
        if i >= 0
    ]


def _gradient(position: Array, colors: list[str]) -> str:
    """Return the heat along the stack as the stops of a CSS gradient, with hard edges and nothing in gaps."""
    _, edges, index = _parts(position)
    stops = [
        f"{colors[i] if i >= 0 else 'transparent'} {100 * a:.4g}% {100 * b:.4g}%"
        for a, b, i in zip(edges[:-1], edges[1:], index, strict=True)
    ]
    return ", ".join(stops)


def _curve(ratio: Array, position: Array, reference: Array | None) -> dict[str, Any]:
    """Return the curve of the ratios: places along the stack and heights as parts, and ticks of both axes."""
    place, parts, index = _parts(position)
    top = max(2.0, float(ratio.max()) * 1.1)
    edges, _ = slice_edges(position)
    length = edges[-1] - edges[0]
    step = _tick_step(length, 6)
    first = np.ceil(edges[0] / step) * step
    labels = np.arange(first, edges[-1], step)
    rise = _tick_step(top, 4)
    positive = np.zeros(len(ratio), bool) if reference is None else np.any(reference.reshape(len(ratio), -1), axis=1)
    return {
        "x": np.round(place, 5).tolist(),
        "y": np.round(ratio / top, 5).tolist(),
        "uniform": 1 / top,
        "x_ticks": [{"at": float((mm - edges[0]) / length), "text": f"{mm + 0:g}"} for mm in labels],
        "y_ticks": [{"at": float(value / top), "text": f"{value:g}"} for value in np.arange(0, top, rise)],
        "reference": [
            {"begin": float(a), "end": float(b)}
            for a, b, i in zip(parts[:-1], parts[1:], index, strict=True)
            if i >= 0 and positive[i]
        ],
    }


def _tick_step(length: float, count: int) -> float:
    """Return a round step that divides ``length`` into at most ``count`` parts."""
    magnitude = 10.0 ** np.floor(np.log10(length / count))
    return float(next(step for step in magnitude * np.array([1, 2, 5, 10]) if length / step <= count))
