"""Unpacking of downloaded archives, and of HDF5 files with many slides: only plain files, whole or not at all."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from monai_mil_ext.data import write_bag
from monai_mil_ext.utils import check_name

__all__ = ["slide_labels", "split_groups", "unpack"]

RESERVE = 2**28  # bytes that stay free


def unpack(archive: Path, target: Path, suffix: str = ".npy") -> int:
    """Unpack the files of a ``.tar.gz`` into one folder, and return their number.

    The folders of the archive are left out, so that no name leads anywhere else. The folder appears when all is
    unpacked; after an interruption, files that are complete are kept. Hidden files are passed over.

    Args:
        archive: the archive.
        target: the folder, which is kept if it exists.
        suffix: suffix of all files.

    Raises:
        OSError: when the disk is full.
        ValueError: when the archive is damaged, has a link or a device, a path that leads out of it, another kind of
            file, or two files of one name.
    """
    if target.is_dir():
        return sum(1 for _ in target.iterdir())
    temporary = target.with_name(f".unpacking-{target.name}")
    temporary.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for member, name in _members(tar, archive.name, suffix):
                if name in names:
                    raise ValueError(f"`archive` must have each file once, got {name!r} twice in {archive.name!r}.")
                names.add(name)
                _write(tar, member, temporary / name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"`archive` must be an undamaged .tar.gz, got {archive.name!r}: {error}.") from None
    if not names:
        raise ValueError(f"`archive` must have files with {suffix}, got none in {archive.name!r}.")
    for stranger in {path.name for path in temporary.iterdir()} - names:
        (temporary / stranger).unlink()
    temporary.rename(target)
    return len(names)


def _members(tar: tarfile.TarFile, archive: str, suffix: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise ValueError(f"`archive` must have plain files inside it only, got {member.name!r} in {archive!r}.")
        if member.isdir() or path.name.startswith("."):
            continue
        if path.suffix != suffix:
            raise ValueError(f"`archive` must have files with {suffix} only, got {path.name!r} in {archive!r}.")
        yield member, path.name


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if path.is_file() and path.stat().st_size == member.size:
        return  # complete before an interruption
    free = shutil.disk_usage(path.parent).free
    if free < member.size + RESERVE:
        raise OSError(f"the disk must have {member.size + RESERVE} bytes free for {path.name!r}, got {free}.")
    source = tar.extractfile(member)
    if source is None:
        raise ValueError(f"`archive` must have plain files only, got {member.name!r}.")
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 2**20)


def slide_labels(path: Path) -> dict[str, int]:
    """Return the label of each group of an HDF5 file with a group a slide: its attribute ``label``.

    Raises:
        ValueError: when the file is damaged, has no groups, or one without a label that is a class number.
    """
    with _open(path) as file:
        labels = {name: group.attrs.get("label") for name, group in file.items() if isinstance(group, h5py.Group)}
    wrong = [name for name, label in labels.items() if np.asarray(label).dtype.kind not in "iuf" or label < 0]
    if wrong or not labels:
        raise ValueError(f"`path` must have a class number as `label` of each slide, got {wrong[:5]} in {path.name!r}.")
    return {name: int(label) for name, label in labels.items()}


def split_groups(path: Path, target: Path, encoder: str) -> int:
    """Write each group of an HDF5 file with a group a slide as a bag file, and return their number.

    A file that exists is kept, so that an interrupted call continues.

    Raises:
        OSError: when the disk is full.
        ValueError: when the file is damaged, or a group has no features (N, F) or no name that a file may have.
    """
    with _open(path) as file:
        for name, group in file.items():
            check_name(slide=name)
            if (target / f"{name}.h5").exists():
                continue
            if not isinstance(group, h5py.Group) or getattr(group.get("feat"), "ndim", 0) != 2:
                raise ValueError(f"`path` must have features `feat` (N, F) in each group, got none in {name!r}.")
            arrays = {"features": group["feat"][()]} | ({"coords": group["coords"][()]} if "coords" in group else {})
            write_bag(target / f"{name}.h5", arrays, {"encoder": encoder, "unit": "px"})
        return len(file)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError:
        raise ValueError(f"`path` must be an undamaged HDF5 file, got {path.name!r}.") from None
