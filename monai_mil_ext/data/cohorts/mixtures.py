"""Cohorts of several encoders, resolutions or modalities, and confounding with the label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .check_report import Issue

__all__ = ["class_labels", "confounding", "merge_close", "mixture", "mixture_issues", "unstated"]

ASSOCIATED = 0.3  # Cramér's V of a medium effect by Cohen
UNSTATED = "unknown"
MAX_VALUES = 5  # in a message


def mixture(name: str, values: Sequence[str | None], is_error: bool = True) -> str:
    """Describe the different values of a property of the files, or return an empty string if there is only one.

    Args:
        name: name of the property.
        values: value in each file; ``None`` if a file does not state it.
        is_error: whether to say that it must be the same, or that it differs.

    Example:
        >>> mixture("encoder", ["uni", "uni", "gigapath", None])
        "encoder must be the same in all files, got 'uni' in 2, 'gigapath' in 1"
    """
    counts = Counter(value for value in values if value is not None).most_common()
    if len(counts) < 2:
        return ""
    listed = [f"{value!r} in {count}" for value, count in counts[:MAX_VALUES]]
    more = [f"{len(counts) - MAX_VALUES} more"] if len(counts) > MAX_VALUES else []
    rule = "must be the same in all files, got" if is_error else "is not the same in all files:"
    return f"{name} {rule} {', '.join([*listed, *more])}"


def unstated(name: str, values: Sequence[str | None]) -> str:
    """Say how many files do not state a property that others state, or return an empty string."""
    missing = sum(value is None for value in values)
    if not 0 < missing < len(values):
        return ""
    verb = "does" if missing == 1 else "do"
    return f"{missing} of {len(values)} files {verb} not state the {name}: not checked"


def confounding(name: str, values: Sequence[str | None], labels: Sequence[str | None], label: str = "label") -> str:
    """Describe the association of a property with the label, or return an empty string if it is weak.

    They are confounded if each value is found in one class only, and partly confounded if Cramér's V, corrected for the
    bias of small samples, is at least 0.3.

    Args:
        name: name of the property.
        values: value in each file; that of files that do not state it is ``None`` and counts as one more value.
        labels: class of each file; files with the class ``None`` are ignored.
        label: name of the label.

    References:
        W. Bergsma. A bias-correction for Cramér's V and Tschuprow's T. Journal of the Korean Statistical Society, 2013.

    Example:
        >>> confounding("encoder", ["uni", "uni", "gigapath"], ["0", "0", "1"])
        'encoder and label are confounded: class 0 is all uni, class 1 all gigapath; a network can separate encoders
        instead of disease'
    """
    pairs = [(UNSTATED if v is None else v, c) for v, c in zip(values, labels, strict=True) if c is not None]
    rows, columns = sorted({value for value, _ in pairs}), sorted({c for _, c in pairs}, key=_numeric_first)
    if len(rows) < 2 or len(columns) < 2:
        return ""
    counts = Counter(pairs)
    table = np.array([[counts[row, column] for column in columns] for row in rows], dtype=float)
    strength = _cramers_v(table)
    separated = bool((np.count_nonzero(table, axis=1) == 1).all())
    if strength < ASSOCIATED and not (separated and len(rows) == len(columns)):  # with values of few files by chance
        return ""
    classes = [_composition(column, dict(zip(rows, table[:, i], strict=True))) for i, column in enumerate(columns)]
    classes[1:] = [text.replace(" is ", " ", 1) for text in classes[1:]]
    kind = "confounded" if separated else f"partly confounded (Cramér's V {strength:.2f})"
    risk = f"a network can separate {_plural(name)} instead of disease"
    return f"{name} and {label} are {kind}: {', '.join(classes)}; {risk}"


def merge_close(values: Sequence[float | None], texts: Sequence[str | None], tolerance: float) -> list[str | None]:
    """Replace the text of each number by that of the first one that is at most ``tolerance`` (a ratio) smaller.

    Example:
        >>> merge_close([0.5, 0.251, 0.249], ["0.5 mpp", "0.251 mpp", "0.249 mpp"], 0.1)
        ['0.5 mpp', '0.249 mpp', '0.249 mpp']
    """
    merged: list[str | None] = [None] * len(values)
    start, text = 0.0, None
    known = [(value, i) for i, value in enumerate(values) if value]
    for value, i in sorted(known):
        if text is None or value > start * (1 + tolerance):
            start, text = value, texts[i]
        merged[i] = text
    return merged


def class_labels(
    items: Sequence[Mapping[str, Any]], classes: Sequence[str] | None = None
) -> dict[str, list[str | None]]:
    """Return the classes of the items, as text, by name of the label.

    A number to predict is split at its median, several labels are one each, and survival is split by the event.
    """
    labels: dict[str, list[str | None]] = {}
    values = [item.get("label") for item in items]
    if any(isinstance(value, Tensor) for value in values):
        columns = zip(*(value.tolist() for value in values if isinstance(value, Tensor)), strict=True)
        for i, column in enumerate(columns):
            labels[f"label {i}"] = [None if math.isnan(value) else f"{value:g}" for value in column]
    elif any(isinstance(value, float) for value in values):
        median = float(np.median([value for value in values if value is not None]))
        labels["label"] = [
            None if v is None else f"above {median:g}" if v > median else f"up to {median:g}" for v in values
        ]
    elif any(value is not None for value in values):
        labels["label"] = [None if value is None else _class_name(value, classes) for value in values]
    if any("event" in item for item in items):
        labels["event"] = [None if "event" not in item else str(item["event"]) for item in items]
    return labels


def mixture_issues(
    name: str, values: Sequence[str | None], labels: Mapping[str, Sequence[str | None]], is_error: bool
) -> tuple[list[Issue], list[Issue]]:
    """Return errors and notes on a property of the files; ``labels`` are those of :py:func:`class_labels`."""
    mixed = mixture(name, values, is_error)
    confounded = [confounding(name, values, classes, label) for label, classes in labels.items()]
    strong = [Issue(name, text) for text in (mixed, *confounded) if text]
    notes = [Issue(name, text) for text in (unstated(name, values),) if text]
    return (strong, notes) if is_error and mixed else ([], [*strong, *notes])


def _class_name(value: Any, classes: Sequence[str] | None) -> str:
    is_index = isinstance(value, int) and classes is not None and 0 <= value < len(classes)
    return repr(classes[value]) if is_index and classes is not None else str(value)


def _numeric_first(name: str) -> tuple[bool, float, str]:
    return (False, float(name), name) if name.isdigit() else (True, 0.0, name)


def _composition(column: str, counts: Mapping[str, float]) -> str:
    """Say which values a class has."""
    found = [(value, int(count)) for value, count in counts.items() if count]
    if len(found) == 1:
        return f"class {column} is all {found[0][0]}"
    return f"class {column} is " + " and ".join(f"{count} {value}" for value, count in found[:MAX_VALUES])


def _plural(name: str) -> str:
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def _cramers_v(table: np.ndarray[Any, Any]) -> float:
    """Return Cramér's V of a table of counts, corrected for bias."""
    total = table.sum()
    expected = table.sum(1, keepdims=True) * table.sum(0) / total
    phi2 = float(((table - expected) ** 2 / expected).sum()) / total
    rows, columns = table.shape
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (total - 1))
    least = min(size - (size - 1) ** 2 / (total - 1) for size in (rows, columns)) - 1
    return math.sqrt(phi2 / least) if least > 0 else 0.0
