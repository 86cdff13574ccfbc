"""Lookup of bag files or slides in a folder by the names that a table uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from monai_mil_ext.utils import check_local, resolve_path
from monai_mil_ext.utils.remote import ObjectPath, is_remote, isdir

from .folder_layout import FEATURE_SUFFIXES, drop_links, file_name, list_files, name_folders, prefer_files

__all__ = ["BagFolder", "resolve_inside"]

DICOM = ".dcm"  # of files whose folder is a slide
OME = ".ome"  # before the suffix of a TIFF file
FAR = "must lie below `root`, got an address or a path out of it: give the address of its folder as --root"
OUTSIDE = "must lie below `root`, got a path or a link out of it: give --root / to allow paths to anywhere"


class BagFolder:
    """Bag files or slides below a folder, found by path or name; no name may lead out of the folder.

    Args:
        root: the folder, or its address in an object store; see :py:func:`list_files` for what is left out.
        table_dir: folder of the table, from where a relative path is taken if there is no such file below ``root``.
        suffixes: suffixes of the files, in lower case.
        preferred: suffixes that are taken where several files have the name of a bag.

    Raises:
        FileNotFoundError: when there is no such folder.

    Example:
        >>> folder = Path("bags", "features_uni_v1")
        >>> folder.mkdir(parents=True)
        >>> (folder / "slide_1.h5").touch()
        >>> BagFolder("bags").find("slide_1.svs").name
        'slide_1.h5'
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        table_dir: str | os.PathLike[str] | None = None,
        suffixes: Sequence[str] = FEATURE_SUFFIXES,
        preferred: Sequence[str] = (),
    ) -> None:
        self.root = resolve_path(root, "root")
        self.table_dir = self.root if table_dir is None else resolve_path(table_dir)
        self.suffixes, self.preferred = tuple(suffixes), tuple(preferred)
        if not isdir(self.root):
            raise FileNotFoundError(f"`root` must be a folder that exists, got {Path(root).name!r}.")

    @property
    def _is_disk(self) -> bool:
        """Truth of the folder being that of all others, which is not searched."""
        return self.root == self.root.parent

    @cached_property
    def files(self) -> list[Path]:
        """Sorted paths of all bag files."""
        return list_files(self.table_dir if self._is_disk else self.root, self.suffixes)

    @cached_property
    def _known(self) -> set[Path]:
        """Paths of all bag files of an object store, which is asked for them once."""
        return set(self.files)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Paths of the files by their names with and without suffix, and of DICOM slides by the names of folders."""
        names: dict[str, list[Path]] = {}
        for file in self.files:
            stem = file.stem
            for name in {file.name, stem, stem.removesuffix(OME)}:
                names.setdefault(name, []).append(file)
        slides = [file for file in self.files if file.suffix.lower() == DICOM] if DICOM in self.suffixes else []
        for folder in sorted({file.parent for file in slides} - {self.root}):
            names.setdefault(folder.name, []).append(folder)
        return names

    def find(self, name: str) -> Path:
        """Return the file of a bag, given its path relative to the folder, or its name with or without suffix.

        Raises:
            ValueError: when there is no such file, there are several, or it lies outside the folder.
        """
        direct = self.inside(name)
        if self._is_bag(direct):
            return direct
        last = file_name(name)
        names = [] if self._is_disk and Path(name).is_absolute() else [name, last, Path(last).stem]
        found = next((self._by_name[key] for key in names if key in self._by_name), [])
        matches = found if len(found) == 1 else drop_links(prefer_files(found, self.preferred))
        if not matches:
            raise ValueError("must be the path or the name of a file below `root`, got none")
        if len(matches) > 1:
            raise ValueError(
                f"must name one file, got {len(matches)} in {name_folders(matches)}: give one of these folders as "
                "`root`, or the path of the file"
            )
        return self.inside(matches[0])

    def inside(self, path: str | os.PathLike[str]) -> Path:
        """Resolve a path relative to the folder, see :py:func:`resolve_inside`."""
        return resolve_inside(path, self.root, self.table_dir)

    def _is_bag(self, path: Path) -> bool:
        """Return whether a path is a file, or a folder that is a bag or a slide."""
        if isinstance(path, ObjectPath):
            return path in self._known
        if os.path.isdir(path):
            return path.suffix == ".zarr" or (DICOM in self.suffixes and any(path.glob("*.dcm")))
        return os.path.isfile(path)


def resolve_inside(path: str | os.PathLike[str], root: Path, table_dir: Path) -> Path:
    """Resolve a path that a table names relative to ``root``, or to the folder of the table if there is no such file.

    Raises:
        ValueError: when the path leads out of ``root``, as an address does unless ``root`` is one that it begins with.
    """
    if is_remote(path) or isinstance(root, ObjectPath):
        return _inside_store(path, root)
    _check_path(path)
    resolved = resolve_path(root / path)
    if not os.path.lexists(resolved) and table_dir != root:
        beside = resolve_path(table_dir / path)
        if os.path.lexists(beside) and beside.is_relative_to(root):
            return beside
    if not resolved.is_relative_to(root):
        raise ValueError(OUTSIDE)
    return resolved


def _inside_store(path: str | os.PathLike[str], root: Path) -> Path:
    """Return an address, or a path below the address ``root``."""
    if not is_remote(path):
        _check_path(path)
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError(FAR)
        return root / path
    address = ObjectPath(path)
    if not address.is_relative_to(root):
        raise ValueError(FAR)
    return address


def _check_path(path: str | os.PathLike[str]) -> None:
    """Check a local path, with an error that fits the cell of a table."""
    try:
        check_local(path=path)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("`path` ").removesuffix(".")) from None
