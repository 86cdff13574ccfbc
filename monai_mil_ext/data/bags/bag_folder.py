"""Lookup of bag files in a folder by the names that a table uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from monai_mil_ext.utils import check_local, resolve_path

__all__ = ["BagFolder"]

SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz", ".safetensors", ".zarr")


class BagFolder:
    """Bag files below a folder, found by path or name; no name may lead out of the folder.

    Args:
        root: the folder; hidden files and folders, such as half-written files, are ignored.

    Raises:
        FileNotFoundError: when there is no such folder.

    Example:
        >>> folder = Path("bags")
        >>> folder.mkdir()
        >>> (folder / "slide_1.h5").touch()
        >>> BagFolder(folder).find("slide_1.svs").name
        'slide_1.h5'
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = resolve_path(root, "root")
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f"`root` must be a folder that exists, got {Path(root).name!r}.")

    @cached_property
    def files(self) -> list[Path]:
        """Sorted paths of all bag files."""
        return sorted(_bag_files(self.root))

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        stems: dict[str, list[Path]] = {}
        for file in self.files:
            stems.setdefault(file.stem, []).append(file)
        return stems

    def find(self, name: str) -> Path:
        """Return the file of a bag, given its path relative to the folder, or its name with or without suffix.

        Raises:
            ValueError: when there is no such file, there are several, or it lies outside the folder.
        """
        direct = self.inside(name)
        if os.path.isfile(direct) or (direct.suffix == ".zarr" and os.path.isdir(direct)):
            return direct
        matches = self._by_stem.get(name) or self._by_stem.get(Path(name).stem) or []
        if not matches:
            raise ValueError("must be the path or the name of a bag file in the folder, got none")
        if len(matches) > 1:
            paths = ", ".join(repr(str(file.relative_to(self.root))) for file in matches)
            raise ValueError(f"must name one file, got {paths}: give its path, or one of their folders as `root`")
        return self.inside(matches[0])

    def inside(self, path: str | os.PathLike[str]) -> Path:
        """Resolve a path relative to the folder.

        Raises:
            ValueError: when the path leads out of the folder, or is an address such as ``s3://bucket/x``.
        """
        try:
            check_local(path=path)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("`path` ").removesuffix(".")) from None
        resolved = resolve_path(self.root / path)
        if not resolved.is_relative_to(self.root):
            raise ValueError("must lie in the folder of the bags, got a path out of it")
        return resolved


def _bag_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        visible = [name for name in [*folders, *files] if not name.startswith(".")]
        yield from (Path(parent) / name for name in visible if name.lower().endswith(SUFFIXES))
        # a zarr store is a bag, not a folder of bags
        folders[:] = [name for name in folders if name in visible and not name.lower().endswith(".zarr")]
