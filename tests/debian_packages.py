"""Programs of the distribution for tests, unpacked into a folder of their own."""

import os
import subprocess

import pytest


def unpack_packages(folder, *packages):
    """Fetch and unpack packages below ``folder``, and return the environment in which their programs run."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    apt = ["apt-get", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    unpack = ["sh", "-c", "for file in *.deb; do dpkg -x $file . || exit 1; done"]
    for command in ([*apt, "update"], [*apt, "download", *packages], unpack):
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"packages can't be fetched: {error}")
    libraries = [str(path) for root in ("lib", "usr/lib") for path in (folder / root).glob("*-linux-gnu")]
    return {
        **os.environ,
        "PATH": f"{folder}/usr/bin:{folder}/usr/sbin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(libraries),
        "DCMDICTPATH": str(folder / "usr/share/libdcmtk17/dicom.dic"),
    }
