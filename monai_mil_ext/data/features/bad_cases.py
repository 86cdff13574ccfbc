"""Cases that gave no features, all in one error, without paths."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import torch

from monai_mil_ext.utils.exceptions import option_hint, root_cause
from monai_mil_ext.utils.privacy import describe_case_error

__all__ = ["BadCasesError", "is_system_error", "reason_of"]

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


def reason_of(error: BaseException, item: Mapping[str, Any]) -> str:
    """Describe the root cause of an error without the names of the item's files, which may identify a patient.

    Example:
        >>> reason_of(KeyError("image"), {"image": "/data/doe.nii"})
        "KeyError: 'image'"
    """
    cause = root_cause(error)
    return describe_case_error(cause, item) + option_hint(cause)


def is_system_error(cause: BaseException) -> bool:
    """Return whether a full disk, full memory or a missing package is to blame: the next case would fail too."""
    disk = isinstance(cause, OSError) and cause.errno in SYSTEM
    return disk or isinstance(cause, (ImportError, MemoryError, torch.OutOfMemoryError))
