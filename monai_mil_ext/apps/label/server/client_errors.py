"""Answers to requests that failed: a status and a reason, without a path or a traceback."""

from __future__ import annotations

import errno
import re
import sqlite3
import traceback
from pathlib import PurePath
from typing import Any

from monai_mil_ext.utils.exceptions import hide_absolute_paths

__all__ = ["explain", "without_paths"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_FOUND = ("ImageNotFoundException", "LabelNotFoundException")
PARSERS = ("json", "pydantic")  # packages that read what a client sent
PASSED_ON = ("fastapi", "starlette", "anyio")
FINITE = "numbers must be finite."
OBJECTS = "`params`, `info` and `wsi` must be JSON objects, and file names plain."
FAILED = "the server failed; its log says why."


def explain(error: BaseException) -> tuple[int, str]:
    """Return the status and the reason for an error that MONAI Label did not handle.

    Example:
        >>> explain(OSError(28, "No space left on device", "/studies/a.nii"))[0]
        507
    """
    if getattr(error, "errno", None) in FULL or (isinstance(error, sqlite3.Error) and "full" in str(error)):
        return 507, "the disk of the server is full; nothing was changed."
    if type(error).__name__ in NOT_FOUND:
        return 404, without_paths(str(getattr(error, "msg", "")))
    if hasattr(error, "msg") and hasattr(error, "error"):  # MONAILabelException
        return 400, without_paths(str(error.msg).split(";")[0])
    if type(error).__module__.startswith("requests."):
        return 502, "the archive must answer, but did not."
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return 400, "a name must be shorter."
    return _by_place(error)


def _by_place(error: BaseException) -> tuple[int, str]:
    """Explain an error by its place: an endpoint of MONAI Label itself fails only because of what a client sent.

    So does the writer of JSON, if it is asked for a number that JSON does not have.
    """
    if isinstance(error, ValueError) and "JSON compliant" in str(error):
        return 400, FINITE
    places = [PurePath(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    places = [parts for parts in places if not any(name in parts for name in PARSERS)]
    last = places[-1] if places else ()
    if "endpoints" in last and "monailabel" in last:
        return 400, OBJECTS
    if isinstance(error, AssertionError) and "monailabel" in last:
        return 404, without_paths(str(error))
    return 500, FAILED


def without_paths(value: Any) -> Any:
    """Return JSON whose texts have no absolute path; of lists of lines, those of tracebacks are left out.

    Example:
        >>> without_paths({"details": ['  File "/a/b.py", line 1', "ValueError: no /data/x"]})
        {'details': ['ValueError: no <path>']}
    """
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value if not _is_of_traceback(entry)]
    return hide_absolute_paths(ValueError(), value) if isinstance(value, str) else value


def _is_of_traceback(line: Any) -> bool:
    return isinstance(line, str) and re.match(r'Traceback \(most|  File "|    ', line) is not None
