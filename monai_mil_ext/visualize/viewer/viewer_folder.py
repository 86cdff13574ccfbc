"""Folder of a viewer: its texts, its removal, and the library that the viewers of an output folder share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from monai_mil_ext.utils import atomic_path, check_choice
from monai_mil_ext.utils.files import remove_file

__all__ = ["FOLDER", "PAGE", "remove_viewer", "viewer_pictures", "write_library", "write_texts"]

VIEWERS = {"none": [], "default": ["viewer"], "full": ["viewer-full"]}
FOLDER, PAGE = "viewer", "index.html"
LIBRARY_FOLDER = "viewer_files"  # in the output folder, beside the folders of the cases
# OpenSeadragon as npm has it, with its license; the version is in the names, so that older pages find theirs
VERSION = "6.1.1"
SHA256 = "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
LIBRARY = {
    f"openseadragon-{VERSION}.min.js": "openseadragon.min.js",
    f"openseadragon-{VERSION}.LICENSE.txt": "LICENSE.txt",
}


def viewer_pictures(viewer: str) -> list[str]:
    """Return the pictures of a saver of results, with or without a viewer, that an option of a bundle names.

    Raises:
        ValueError: if ``viewer`` is neither ``"default"`` nor ``"full"`` nor ``"none"``.

    Example:
        >>> viewer_pictures("default"), viewer_pictures("none")
        (['viewer'], [])
    """
    check_choice("viewer", viewer, VIEWERS)
    return list(VIEWERS[viewer])


def remove_viewer(folder: Path) -> None:
    """Remove the viewer of an earlier run from the folder of a case; what a link leads to is kept.

    Raises:
        OSError: when a file can't be removed; the message names it without its folder.
    """
    target = folder / FOLDER
    if target.is_symlink() or not target.is_dir():
        remove_file(target)
        return
    for parent, folders, names in os.walk(target, topdown=False):  # which follows no link
        for name in (*names, *folders):
            path = Path(parent, name)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                remove_file(path)
    target.rmdir()


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts atomically as files of a folder."""
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_library(output_dir: Path) -> str:
    """Write OpenSeadragon and its license into an output folder, unless they are there.

    Returns:
        Address of its script, relative to the output folder.
    """
    shipped = files("monai_mil_ext.visualize") / "viewer" / "openseadragon"
    for name, source in LIBRARY.items():
        path, content = output_dir / LIBRARY_FOLDER / name, (shipped / source).read_bytes()
        if not path.is_file() or path.read_bytes() != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
    return f"{LIBRARY_FOLDER}/{next(iter(LIBRARY))}"
