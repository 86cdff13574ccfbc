"""Sessions of MONAI Label whose uploaded archives stay in their folder."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import Any

from monai_mil_ext.apps.label._monailabel import Sessions
from monai_mil_ext.apps.label.errors import http_error

__all__ = ["UploadSessions", "check_archive", "is_session_id"]

LARGEST = 8 * 2**30  # bytes of all files of an archive together
Member = tuple[str, int, bool]  # name, bytes, whether it is a file or a folder


class UploadSessions(Sessions):
    """Sessions that refuse an archive with files outside of it, with links, or that grows too large."""

    def add_session(self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: Any = None) -> Any:
        """Add an uploaded file, or the files of an archive."""
        if uncompress:
            check_archive(data_file)
        return super().add_session(data_file, expiry, uncompress, session_id)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """Return a session, or None for an ID that the server has not given."""
        return super().get_session(session_id, update_ts, fetch_cache) if is_session_id(session_id) else None


def is_session_id(text: Any) -> bool:
    """Return whether ``text`` is an ID of a session, which becomes the name of a folder."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f-]{36}", text) is not None


def check_archive(file: str, largest: int = LARGEST) -> None:
    """Check that an archive, zip or tar, can be unpacked safely.

    Raises:
        HTTPException: 400 for another file, a link or a member outside of the archive's folder, 413 for too much.
    """
    try:
        members = list(_members(file))
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile):
        raise http_error("`files` must be a readable zip or tar archive.") from None
    for name, _, is_plain in members:
        parts = PurePosixPath(name.replace("\\", "/"))
        if not is_plain or parts.is_absolute() or ".." in parts.parts:
            raise http_error("`files` must be an archive of plain files, got a link or a path outside of it.")
    if sum(size for _, size, _ in members) > largest:
        raise http_error(f"`files` must hold at most {largest} bytes, got more.", 413)


def _members(file: str) -> list[Member]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return [(one.filename, one.file_size, True) for one in archive.infolist()]
    with tarfile.open(file) as tar:
        return [(one.name, one.size, one.isfile() or one.isdir()) for one in tar]
