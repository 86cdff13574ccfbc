"""Removal of the names of files and folders, which often are names of patients, from texts."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .enums import BagKeys
from .exceptions import hide_absolute_paths, reason_text

__all__ = ["describe_case_error", "hide_paths", "item_paths"]

FILES = ("image", "reference", str(BagKeys.SOURCE))  # keys of an item whose values are always paths
IDS = (BagKeys.CASE_ID, BagKeys.PATIENT, BagKeys.STATUS, BagKeys.PLANE, BagKeys.SLIDE_MPP, BagKeys.UNIT, "label")
SENTENCES = (BagKeys.INPUT_ERROR, BagKeys.PICTURES_MISSING, BagKeys.CONTAINER, BagKeys.NOTES)  # without names
# names of folders that are words of messages
WORDS = {"dicom", "dicomdir", "itk", "nifti", "nibabel", "pydicom", "highdicom", "series", "rtstruct"}


def hide_paths(text: str, paths: Iterable[str | os.PathLike[str]], substitute: str = "the file") -> str:
    """Replace paths, and the names of their files and folders, wherever they stand in a text.

    A name is also found without its suffix, as part of another path, URL-encoded, and as ``repr`` or ``ascii`` writes
    it; of a folder, the names of what it contains are found as well. A name that is a plain word in small letters
    (``images``) is replaced only where it is quoted or part of a path. The folders of the working directory, the home
    and the temporary directory are no names.

    Args:
        text: message of an error.
        paths: paths of an item, as given.
        substitute: replacement.

    Example:
        >>> hide_paths("ITK can't read 'DOE_JOHN' at /data/DOE_JOHN/0001.dcm", ["/data/DOE_JOHN"], "the scan")
        "ITK can't read the scan at the scan"
    """
    given = [os.fspath(path) for path in paths]
    names = {name for path in given for name in _names(Path(path))}
    whole = {form for path in given for form in (path, str(Path(path).absolute()), str(Path(path).absolute().parent))}
    whole = {path for path in whole if len(Path(path).parts) > 2 or (path in given and re.search(r"[/\\]", path))}
    bare = {name for name in names if _is_bare(name)}
    for pattern in (
        rf"['\"]?(?:{_any(whole, True)})(?:[/\\][^\s'\"]*)?['\"]?" if whole else "",
        rf"['\"](?:{_any(names)})['\"]",
        rf"['\"]?[^\s'\"]*[/\\](?:{_any(names)})(?![^\W_])[^\s'\"]*['\"]?",
        rf"['\"]?(?:{_any(names)})[/\\][^\s'\"]*['\"]?",
        rf"['\"]?(?<![^\W_])(?:{_any(bare)})(?![^\W_])['\"]?" if bare else "",
    ):
        text = re.sub(pattern, lambda match: substitute, text) if pattern and names else text
    return text


def describe_case_error(error: BaseException, item: Mapping[Any, Any], substitute: str = "the file") -> str:
    """Describe an error in one line without paths and without the names of the files and folders of an item.

    Example:
        >>> describe_case_error(ValueError("`image` must be a scan, got '/data/doe.nii'."), {"image": "/data/doe.nii"})
        '`image` must be a scan, got the file.'
    """
    return hide_absolute_paths(error, hide_paths(reason_text(error), item_paths(item), substitute))


def item_paths(item: Mapping[Any, Any]) -> list[str | os.PathLike[str]]:
    """Return all texts of an item that may be paths: those of ``image``, and others with the form of a path."""
    values = [(key, value) for key, value in item.items() if key not in (*IDS, *SENTENCES)]
    parts = [(key, part) for key, v in values for part in (v if isinstance(v, (list, tuple)) else [v])]
    return [part for key, part in parts if _is_path(part, always=key in FILES)]


def _is_path(value: Any, always: bool) -> bool:
    """Return whether a value may be a path; words, numbers and UIDs, such as the series of a scan, are none."""
    if not isinstance(value, str):
        return isinstance(value, os.PathLike)
    return bool(value) and (always or bool(re.search(r"[/\\]|\.[^\W\d_]\w*$", value)) or os.path.lexists(value))


def _names(path: Path) -> set[str]:
    """Return the names of a path and its folders, with and without suffixes, and of the content of a folder."""
    common = {part for folder in (Path.cwd(), Path.home(), Path(tempfile.gettempdir())) for part in folder.parts}
    whole = path.absolute()
    names = {part for part in whole.parts[1:] if part not in common} | {whole.name}
    if whole.is_dir():
        names |= {child.name for child in whole.iterdir() if re.search(r"[^\W\d_]", child.name)}
    stems = {name.rsplit(".", k)[0] for name in names for k in range(1, 1 + len(Path(name).suffixes))}
    return (names | {stem for stem in stems if re.search(r"[^\W\d_]", stem)}) - {""}


def _is_bare(name: str) -> bool:
    plain = name.isascii() and name.islower() and name.isalpha()
    return len(name) > 2 and not plain and name.lower() not in WORDS


def _any(names: Iterable[str], paths: bool = False) -> str:
    """Return a pattern of all ways in which names are written, the longest first."""
    forms = {form for name in names for form in (name, quote(name), repr(name)[1:-1], ascii(name)[1:-1])}
    forms |= {form.replace("/", "\\") for form in forms} if paths else set()
    return "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
