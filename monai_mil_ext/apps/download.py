"""Download of data in pinned packages, which are opened as archives and never installed."""

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
    """Download pinned packages with pip, unless they exist, and return their archives.

    Nothing is installed, and dependencies are not fetched. pip checks the hash of every archive.

    Args:
        requirements: requirements file of pip, with a version and a ``--hash`` for every package.
        folder: folder of the archives.
        instead: advice for users without access to the packages; the last line of the error.

    Returns:
        Paths of the archives by package name.

    Raises:
        FileNotFoundError: if ``requirements`` does not exist.
        RuntimeError: if a package cannot be fetched or has a different hash, with pip's own message.
    """
    file, target = Path(requirements), Path(folder)
    if not file.is_file():
        raise FileNotFoundError(f"`requirements` must be a file that exists, got {file.name!r}.")
    target.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # pip checks each hash before it opens an archive; without a build environment, which only reads a name
    done = subprocess.run(  # noqa: S603 - runs pip with fixed arguments
        [*pip, "--no-build-isolation", "--require-hashes", "-r", str(file), "-d", str(target)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("WARNING"))
        lines = ["the data must be fetched from the package registry, and pip could not:", reason[-2000:], instead]
        raise RuntimeError("\n".join(line for line in lines if line))
    return {path.name.split("-")[0]: path for path in target.iterdir() if path.suffix in {".whl", ".gz"}}


def extract_member(archive: str | os.PathLike[str], member: str, target: str | os.PathLike[str] | None = None) -> bytes:
    """Read a file of a wheel (``.whl``) or source archive (``.tar.gz``), and write it to ``target`` if given.

    Args:
        archive: path of the archive.
        member: path of the file inside the archive.
        target: file to write, atomically.

    Returns:
        Content of the file.

    Raises:
        ValueError: if the archive has no such file.

    Example:
        >>> wheel = Path("package.whl")
        >>> with zipfile.ZipFile(wheel, "w") as file:
        ...     file.writestr("package/data.csv", "1,2")
        >>> extract_member(wheel, "package/data.csv")
        b'1,2'
    """
    path = Path(archive)
    try:
        content = _from_wheel(path, member) if path.suffix == ".whl" else _from_tar(path, member)
    except KeyError:
        raise ValueError(f"`member` must be a file of {path.name!r}, got {member!r}.") from None
    if target is not None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    return content


def _from_wheel(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as wheel:
        return wheel.read(member)


def _from_tar(archive: Path, member: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise KeyError(member)
        return file.read()
