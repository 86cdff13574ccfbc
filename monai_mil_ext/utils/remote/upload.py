"""Upload of a folder of results to an object store."""

from __future__ import annotations

import os
from pathlib import Path

from .object_path import ObjectPath, is_remote

__all__ = ["check_stores", "files_to_send", "upload_folder"]

LAST = ("report.html", "prediction.json", "model.json", "run.json")  # whose presence says that the rest is complete


def check_stores(*addresses: str | os.PathLike[str] | None, upload: str | None = None) -> None:
    """Raise an error unless the buckets of addresses exist and answer, before hours of work for them.

    Args:
        addresses: folders of results, of which those of this machine need no check, and None.
        upload: address for a finished folder, which can be in an object store only.

    Raises:
        StoreError: when a store refuses or does not answer.
        ValueError: when ``upload`` is no address of an object store.

    Example:
        >>> check_stores("study", "memory://bucket/study", None)
        >>> check_stores("study", upload="elsewhere")
        Traceback (most recent call last):
        ...
        ValueError: `upload` must be an address of an object store, such as s3://bucket/study, got another path.
    """
    remote = [ObjectPath(address) for address in addresses if address is not None and is_remote(address)]
    for target in [*remote, *([] if upload is None else [_target(upload)])]:
        target.exists()


def _target(address: str) -> ObjectPath:
    if not is_remote(address):
        raise ValueError("`upload` must be an address of an object store, such as s3://bucket/study, got another path.")
    return ObjectPath(address)


def upload_folder(folder: str | os.PathLike[str], address: str, needs: str = "") -> int:
    """Upload the files of a folder below an address, each as a whole object, and return their number.

    Hidden files are left out. Reports and records (``report.html``, ``prediction.json``, ``model.json``) come last, so
    that whoever sees one of them sees the rest. What lies there already under another name stays.

    Args:
        folder: the folder.
        address: address of an object store.
        needs: name of a file without which nothing is sent yet, such as the report of a study.

    Raises:
        StoreError: when the store refuses or does not answer; what has arrived stays.
        ValueError: when the address is none of an object store.

    Example:
        >>> Path("study").mkdir()
        >>> _ = Path("study/report.html").write_text("done")
        >>> upload_folder("study", "memory://bucket/study"), ObjectPath("memory://bucket/study/report.html").read_text()
        (1, 'done')
    """
    root, target = Path(folder), _target(address)
    if not (root / needs).exists():
        return 0
    files = files_to_send(root)
    for file in files:
        (target / file.relative_to(root)).upload(file)
    return len(files)


def files_to_send(folder: Path) -> list[Path]:
    """Return the files of a folder that are not hidden, in the order in which they are uploaded: records come last."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(folder))]
    return sorted(files, key=lambda file: file.name in LAST)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
