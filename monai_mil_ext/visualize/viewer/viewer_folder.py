"""Folder of a viewer: its texts, its removal, and the libraries that the viewers of an output folder share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from monai_mil_ext.utils import atomic_path, check_choice
from monai_mil_ext.utils.files import remove_file

__all__ = [
    "FOLDER",
    "NIIVUE",
    "OPENSEADRAGON",
    "PAGE",
    "Library",
    "remove_viewer",
    "viewer_pictures",
    "write_library",
    "write_texts",
]

VIEWERS = {"none": [], "default": ["viewer"], "full": ["viewer-full"]}
FOLDER, PAGE = "viewer", "index.html"
LIBRARY_FOLDER = "viewer_files"  # in the output folder, beside the folders of the cases


class Library(NamedTuple):
    """Library of a viewer as npm has it, with its license.

    Its version is in the names of its files, so that pages of an older version find theirs.
    """

    name: str  # of its folder in this package, too
    version: str
    script: str
    sha256: str

    @property
    def files(self) -> dict[str, str]:
        """Names in this package by those in an output folder; the script is the first."""
        stem = f"{self.name}-{self.version}"
        return {stem + self.script.removeprefix(self.name): self.script, f"{stem}.LICENSE.txt": "LICENSE.txt"}


OPENSEADRAGON = Library(
    "openseadragon",
    "6.1.1",
    "openseadragon.min.js",
    "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad",
)
NIIVUE = Library(
    "niivue", "0.69.0", "niivue.umd.js", "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
)


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


def write_library(output_dir: Path, library: Library) -> str:
    """Write a library and its license into an output folder, unless they are there.

    Returns:
        Address of its script, relative to the output folder.
    """
    shipped = files("monai_mil_ext.visualize") / "viewer" / library.name
    for name, source in library.files.items():
        path, content = output_dir / LIBRARY_FOLDER / name, (shipped / source).read_bytes()
        if not path.is_file() or path.read_bytes() != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
    return f"{LIBRARY_FOLDER}/{next(iter(library.files))}"
