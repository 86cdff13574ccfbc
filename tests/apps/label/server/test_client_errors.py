"""Tests of the answers to failed requests."""

import errno
import sqlite3

import pytest

from monai_mil_ext.apps.label.server.client_errors import FAILED, OBJECTS, explain, without_paths


class ImageNotFoundException(Exception):  # noqa: N818
    msg = "Image a not found in /data/studies"


class MONAILabelException(Exception):  # noqa: N818
    error, msg = "INVALID_INPUT", "There is no model; {'image': '/data/doe.nii'}"


def raised_in(path, error):
    """The error as if raised by a file at ``path``."""
    try:
        exec(compile("raise error", path, "exec"), {"error": error})  # noqa: S102
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ImageNotFoundException(), 404, "Image a not found in <path>"),
        (MONAILabelException(), 400, "There is no model"),
        (OSError(errno.ENOSPC, "full"), 507, "the disk of the server is full; nothing was changed."),
        (sqlite3.OperationalError("database or disk is full"), 507, "the disk of the server is full"),
        (OSError(errno.ENAMETOOLONG, "too long"), 400, "a name must be shorter."),
        (raised_in("/x/monailabel/endpoints/infer.py", TypeError("int")), 400, OBJECTS),
        (raised_in("/x/monailabel/datastore/local.py", AssertionError("nothing")), 404, "nothing"),
        (raised_in("/x/monailabel/datastore/local.py", TypeError("int")), 500, FAILED),
        (ValueError("in /data/doe_jane"), 500, FAILED),
        (ValueError("Out of range float values are not JSON compliant: inf"), 400, "numbers must be finite."),
    ],
)
def test_explain_gives_status_and_reason_without_a_path(error, status, reason):
    assert explain(error)[0] == status
    assert explain(error)[1].startswith(reason)
    assert "/data" not in explain(error)[1]


def test_without_paths_drops_tracebacks_of_logs():
    lines = ["Traceback (most recent call last):", '  File "/a/b.py", line 3, in x', "    run(x)", "[12] loaded /a/b/c"]
    assert without_paths({"details": lines, "n": [1, None]}) == {"details": ["[12] loaded <path>"], "n": [1, None]}
