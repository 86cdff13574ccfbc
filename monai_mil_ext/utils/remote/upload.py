"""Upload of a folder of results to an object store."""

from __future__ import annotations

import os
from pathlib import Path

from .object_path import ObjectPath, is_remote
from .store import open_store, store_errors

__all__ = ["upload_folder"]

LAST = ("report.html", "prediction.json", "model.json")  # whose presence says that the rest is complete


def upload_folder(folder: str | os.PathLike[str], address: str) -> int:
    """Upload the files of a folder below an address, each as a whole object, and return their number.

    Hidden files are left out. Reports and records (``report.html``, ``prediction.json``, ``model.json``) come last, so
    that whoever sees one of them sees the rest. What lies there already under another name stays.

    Raises:
        StoreError: when the store refuses or does not answer; what has arrived stays.
        ValueError: when the address is none of an object store.

    Example:
        >>> Path("study").mkdir()
        >>> _ = Path("study/report.html").write_text("done")
        >>> upload_folder("study", "memory://bucket/study"), ObjectPath("memory://bucket/study/report.html").read_text()
        (1, 'done')
    """
    if not is_remote(address):
        raise ValueError("`address` must be one of an object store, such as s3://bucket/study, got a local path.")
    root, target = Path(folder), ObjectPath(address)
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
