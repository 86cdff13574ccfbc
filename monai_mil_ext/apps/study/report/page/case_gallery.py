"""Gallery of the cases of a report: pictures of those with the greatest and of those with the smallest errors."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.apps.study.tasks import Task

from .report_tables import format_number

__all__ = ["case_gallery", "data_address"]

GROUPS = ("Greatest errors", "Smallest errors")
NOUNS = {"regression": "value", "survival": "risk", "cox": "risk"}


def case_gallery(rows: Sequence[Mapping[str, Any]], task: Task, max_bytes: int) -> list[dict[str, Any]]:
    """Return the groups of cases with pictures: ``title``, and ``figures`` of ``caption`` and ``sources``.

    Args:
        rows: rows of cases, the greatest error first; some have ``pictures``.
        task: task of the study.
        max_bytes: size of all pictures; the cases whose errors are neither great nor small are left out first.
    """
    drawn = [i for i, row in enumerate(rows) if row.get("pictures")]
    greatest = [i for i in drawn if i < len(rows) / 2]
    smallest = [i for i in drawn[::-1] if i >= len(rows) / 2]
    groups: list[dict[str, Any]] = [{"title": title, "figures": []} for title in GROUPS]
    left = max_bytes
    for rank in range(max(len(greatest), len(smallest))):
        for group, members in zip(groups, (greatest, smallest), strict=True):
            if rank < len(members):
                row = rows[members[rank]]
                left -= sum(map(len, row["pictures"]))
                if left >= 0:
                    sources = [data_address(picture) for picture in row["pictures"]]
                    group["figures"].append({"caption": _caption(row, task), "sources": sources})
    return [group for group in groups if group["figures"]]


def _caption(row: Mapping[str, Any], task: Task) -> str:
    """Return case, truth, and the prediction of the method whose attention is shown."""
    method, output = next(iter((row.get("outputs") or {}).items()), ("", None))
    truth = format_number(row["truth"]) if isinstance(row.get("truth"), float) else str(row.get("truth"))
    noun = f"probability of {task.class_names[1]}" if task.is_binary else NOUNS.get(task.kind, "prediction")
    found = format_number(output) if isinstance(output, (int, float)) else str(output)
    predicted = f"no prediction by {method}" if output is None else f"{noun} by {method} {found}"
    return f"{row.get('case_id')}: {truth}; {predicted}; error {format_number(row.get('error'))}"


def data_address(picture: bytes) -> str:
    r"""Return a PNG or JPEG as a data address.

    Example:
        >>> data_address(b"\xff\xd8")
        'data:image/jpeg;base64,/9g='
    """
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
