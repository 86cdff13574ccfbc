"""Windows of gray values that a page offers for stored slices."""

from __future__ import annotations

import re
from typing import Any

from monai_mil_ext.transforms import CTWindows

__all__ = ["gray_windows"]

HOUNSFIELD = re.compile(r"window (-?[\d.]+) to (-?[\d.]+) HU")
AIR = -1000.0  # HU; nothing in a body is below
MIN_LEVELS = 32  # of the 256 stored gray values that a window has at least
PARTS = (("dark half", 0.0, 0.5), ("middle half", 0.25, 0.75), ("bright half", 0.5, 1.0))


def gray_windows(window: str) -> list[dict[str, Any]]:
    """Return the windows in which stored slices can be shown, as parts of their range of gray values.

    The first one is the range itself, as the network sees it. If it is known in HU, the presets of
    :py:class:`monai_mil_ext.transforms.CTWindows` that lie in it follow; one that reaches further up would hide that
    its brightest values are cut, and one of fewer than 32 gray values would show steps. Otherwise, parts of the range
    follow.

    Args:
        window: description of the gray values, such as ``"window -1000 to 400 HU"``.

    Returns:
        ``name``, ``low`` and ``high`` of each window.

    Example:
        >>> [window["name"] for window in gray_windows("window -160 to 240 HU")]
        ['as the network sees it', 'brain, 0 to 80 HU', 'liver, -45 to 105 HU', 'mediastinum, -125 to 225 HU',
        'subdural, -20 to 180 HU']
        >>> gray_windows("normalization percentile")[1]
        {'name': 'dark half', 'low': 0.0, 'high': 0.5}
    """
    whole = ("as the network sees it", 0.0, 1.0)
    known = HOUNSFIELD.fullmatch(window)
    found = _presets(*map(float, known.groups())) if known else list(PARTS)
    return [{"name": name, "low": low, "high": high} for name, low, high in [whole, *found]]


def _presets(lowest: float, highest: float) -> list[tuple[str, float, float]]:
    """Return the presets of a CT that stored values from ``lowest`` to ``highest`` in HU can show."""
    span, found = highest - lowest, []
    for name, (center, width) in sorted(CTWindows.PRESETS.items()):
        low, high = center - width / 2, center + width / 2
        is_inside = max(low, AIR) >= lowest and high <= highest
        if is_inside and width < 2 * span and width / span * 256 >= MIN_LEVELS and (low, high) != (lowest, highest):
            text = f"{name}, {low:g} to {high:g} HU"
            found.append((text, round((low - lowest) / span, 5), round((high - lowest) / span, 5)))
    return found
