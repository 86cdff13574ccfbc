"""Checks of paths: no address of a remote store, and no error that shows a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .remote.object_path import ObjectPath, is_remote

__all__ = ["check_local", "check_local_settings", "find_file", "resolve_path", "result_path"]

# fsspec's form, also chained (``simplecache::s3://``); one slash is left of the two where a Path was made of it.
# A scheme has two letters at least, so that a drive of Windows is none.
SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]+::)*([a-z][a-z0-9+.-]+)(?:::?/|::)", re.IGNORECASE)
FILES = ("feature_dir", "input", "root", "table")  # settings of bundles that may be addresses in each of them


def check_local(**paths: str | os.PathLike[str] | None) -> None:
    """Raise ``ValueError`` if a path, passed by name, is an address such as ``s3://bucket/x`` or has a null character.

    Python takes such an address for a relative path, so that results would go to a local folder ``s3:``.

    Example:
        >>> check_local(output_dir="s3://bucket/results")
        Traceback (most recent call last):
        ...
        ValueError: `output_dir` must be a local path, got an address that begins with 's3://'.
    """
    for name, path in paths.items():
        text = "" if path is None else os.fsdecode(path)
        scheme = SCHEME.match(text.lstrip())
        if scheme:
            raise ValueError(
                f"`{name}` must be a local path, got an address that begins with '{scheme[1].lower()}://'."
            )
        if "\0" in text:
            raise ValueError(f"`{name}` must be a path, got one with a null character.")


def check_local_settings(settings: Mapping[str, Any], remote: Collection[str] = FILES) -> None:
    """Raise ``ValueError`` if a setting of a bundle that names files, such as ``ckpt_dir``, is an address.

    Args:
        settings: settings by their names.
        remote: names of those that may be the address of an object store.

    Example:
        >>> check_local_settings({"epochs": 3, "train#ckpt_dir": "gs://bucket/models"})
        Traceback (most recent call last):
        ...
        ValueError: `train#ckpt_dir` must be a local path, got an address that begins with 'gs://'.
    """
    for key, value in settings.items():
        name = re.split("#|::", str(key))[-1]
        if not isinstance(value, (str, os.PathLike)) or (name in remote and is_remote(value)):
            continue
        if name.endswith("_dir") or name in FILES:
            check_local(**{str(key): value})


def find_file(name: str, *folders: str | os.PathLike[str]) -> str:
    """Return the path of a file in the first of several folders that has it, or in the first one if none has it.

    Example:
        >>> find_file("mobilenet_v2.pth", "own", "data")
        'own/mobilenet_v2.pth'
    """
    check_local(**{f"folder {i}": folder for i, folder in enumerate(folders)})
    paths = [os.path.join(folder, name) for folder in folders]
    return next(filter(os.path.isfile, paths), paths[0])


def result_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Return the path of results, which may be an address of an object store and of nothing else.

    Args:
        path: the path, which need not exist.
        name: name of the argument for messages.

    Raises:
        ValueError: when the path is an address that is none of an object store, or has a null character.

    Example:
        >>> str(result_path("memory://bucket/features")), result_path("features").name
        ('memory://bucket/features', 'features')
    """
    if is_remote(path):
        return ObjectPath(path)
    check_local(**{name: path})
    return Path(path)


def resolve_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Return the absolute path without symbolic links; of a link to itself, the path of the link.

    The address of an object store is returned as an :py:class:`monai_mil_ext.utils.remote.ObjectPath`.

    ``Path.resolve`` raises a ``RuntimeError`` with the whole path for a link to itself.

    Args:
        path: the path, which need not exist.
        name: name of the argument for messages.

    Raises:
        ValueError: when the path is an address that is none of an object store, or has a null character.
    """
    place = result_path(path, name)
    return place if is_remote(place) else Path(os.path.realpath(place))
