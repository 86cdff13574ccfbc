"""Upload of a folder of results to an object store."""

from __future__ import annotations

import os
from pathlib import Path

from .object_path import ObjectPath, is_remote
from .store import open_store, store_errors

__all__ = ["check_work_folder", "upload_folder"]

LAST = ("report.html", "prediction.json", "model.json")  # whose presence says that the rest is complete


def check_work_folder(study_dir: str | os.PathLike[str], upload: str | None = None) -> None:
    """Raise an error unless a folder of work lies on this machine, and its upload, if any, can go where it is to go.

    Args:
        study_dir: folder of a study, whose runs are locked, renamed and continued.
        upload: address of an object store for the finished folder; its bucket is asked for.

    Raises:
        StoreError: when the store refuses or does not answer.
        ValueError: when the folder is an address, or ``upload`` is none of an object store.

    Example:
        >>> check_work_folder("study", "memory://bucket/study")
        >>> check_work_folder("s3://bucket/study")
        Traceback (most recent call last):
        ...
        ValueError: `study_dir` must be a local path, got an address of an object store: --upload ADDRESS sends the ...
    """
    if is_remote(study_dir):
        raise ValueError(
            "`study_dir` must be a local path, got an address of an object store: --upload ADDRESS sends the finished "
            "study there."
        )
    if upload is not None:
        _target(upload).exists()


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
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(root))]
    for file in sorted(files, key=lambda file: file.name in LAST):
        store, key = open_store(str(target / file.relative_to(root)))
        with store_errors(file.name):
            if store.async_impl:
                store.put_file(str(file), key)
            else:
                store.pipe_file(key, file.read_bytes())
    return len(files)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
