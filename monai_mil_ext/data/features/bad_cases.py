"""Cases that gave no features, all in one error, without paths."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_mil_ext.utils import BagKeys
from monai_mil_ext.utils.exceptions import root_cause

__all__ = ["BadCasesError", "describe_failure", "is_system_error", "reason_of"]

SYSTEM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)


class BadCasesError(ValueError):
    """Error for all cases that gave no features.

    Args:
        reasons: reason by case ID.

    Example:
        >>> raise BadCasesError({"a": "OSError: damaged", "b": "ValueError: no tissue"})
        Traceback (most recent call last):
        ...
        monai_mil_ext.data.features.bad_cases.BadCasesError: every case must give features, got 2 that do not:
          case 'a': OSError: damaged
          case 'b': ValueError: no tissue
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        rows = [f"case {case!r}: {reason}" for case, reason in reasons.items()]
        super().__init__("\n  ".join([f"every case must give features, got {len(rows)} that do not:", *rows]))
        self.reasons = dict(reasons)

    def __reduce__(self) -> tuple[type[BadCasesError], tuple[dict[str, str]]]:
        return BadCasesError, (self.reasons,)


def describe_failure(cause: BaseException, item: Mapping[str, Any]) -> str:
    """Describe an error in one line without paths and names of the item's files, which may identify a patient.

    Example:
        >>> describe_failure(ValueError("`image` must be a scan, got '/data/doe.nii'."), {"image": "/data/doe.nii"})
        "`image` must be a scan, got '<image>'."
    """
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    for key, value in item.items():
        for path in _paths(value) if key != BagKeys.CASE_ID else []:
            text = re.sub(re.escape(str(path)) + r"[^\s'\"]*", f"<{key}>", text)
            text = re.sub(rf"(?<!\w){re.escape(path.name)}(?!\w)", f"<{key}>", text)
    text = re.sub(r"(?<![\w<])(/[^\s/'\":,]+){2,}", "<path>", text)
    return " ".join(text.split())


def reason_of(error: BaseException, item: Mapping[str, Any]) -> str:
    """Describe the root cause of an error, with its type unless it is a ``ValueError``, whose text is a sentence."""
    cause = root_cause(error)
    kind = "" if isinstance(cause, ValueError) else f"{type(cause).__name__}: "
    return f"{kind}{describe_failure(cause, item)}"


def _paths(value: Any) -> list[Path]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [Path(v) for v in values if isinstance(v, (str, os.PathLike)) and os.sep in os.fspath(v)]


def is_system_error(cause: BaseException) -> bool:
    """Return whether disk or memory is full, or the disk read-only, so that the next case would fail as well."""
    disk = isinstance(cause, OSError) and cause.errno in SYSTEM
    return disk or isinstance(cause, (MemoryError, torch.OutOfMemoryError))
