"""Names that clients send: they become file names, so each must be a plain one."""

from __future__ import annotations

import errno
import unicodedata
from pathlib import Path
from typing import Any

from monai_mil_ext.apps.label.errors import http_error

__all__ = ["check_extension", "check_name", "check_uid"]

LONGEST = 200  # bytes; file systems take 255, and an extension follows
SEPARATORS = set('/\\:"*?<>|\u2044\u2215\u29f5\u29f8\ufffd')  # also what looks like one, and bytes that are no text


def check_name(name: Any, what: str) -> str:
    """Return a name that stays in its folder.

    Args:
        name: ID of an image or a label, or a tag, as a client sent it.
        what: parameter of the request, for the message.

    Raises:
        HTTPException: 400 for a name with a separator or a control character, a hidden one, or one that is too long.

    Example:
        >>> check_name("scan_41", "image")
        'scan_41'
    """
    text = str(getattr(name, "value", name))  # tags of MONAI Label are members of an enumeration
    parts = {*text, *unicodedata.normalize("NFKC", text)}
    plain = text.isprintable() and not SEPARATORS & parts and not text.startswith((".", " "))
    if not text or not plain or len(text.encode("utf-8", "replace")) > LONGEST:
        raise http_error(f"`{what}` must be a plain name without separators, got {text[:40]!r}.")
    return text


def check_uid(name: Any, what: str) -> str:
    """Return a UID of DICOM, as :py:func:`check_name` does with names.

    Raises:
        HTTPException: 404 for any other text, since no series has such an ID.
    """
    text = check_name(name, what)
    if len(text) > 64 or not all(part.isdecimal() for part in text.split(".")):
        raise http_error(f"`{what}` must be the UID of a series in the archive, got {text[:40]!r}.", 404)
    return text


def check_extension(file: str, extensions: tuple[str, ...], what: str) -> None:
    """Check that an uploaded file has one of ``extensions``, since others may be run or served.

    Raises:
        HTTPException: 400.
    """
    if not Path(file).name.lower().endswith(extensions):
        endings = ", ".join(sorted(extensions))
        raise http_error(f"`{what}` must be a file with one of the endings {endings}.")


def exists(path: str) -> bool:
    """Return whether a path exists; one that no file can have does not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise
        return False
