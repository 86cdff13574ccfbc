"""A folder of 40 scans and slides as hospitals and scanners write them, sound, unusual and damaged."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pydicom
from pydicom.uid import RLELossless, generate_uid

from tests.data.slides.containers import write_aperio, write_ome, write_qptiff, write_scn, write_tiff
from tests.data.slides.dicom_slide import write_dicom
from tests.make_slide import stained, write_slide, write_truncated
from tests.scans import write_enhanced, write_mha, write_nifti, write_nrrd, write_series, write_structure_set

__all__ = ["SCANS", "SLIDES", "Expected", "write_mixed_folder"]

SHAPE = (8, 8, 6)
SIDE = 600  # pixels of a slide


class Expected(NamedTuple):
    """What the table of results must state of one input.

    Args:
        write: function that writes the input to a path.
        container: pattern of the container.
        status: pattern of the status.
        option: option that would help, ``""`` for none.
        notes: pattern of the notes.
    """

    write: Callable[[Path], object]
    container: str
    status: str = "^done$"
    option: str = ""
    notes: str = "^$"


def series(shape=SHAPE, **values) -> Callable[[Path], object]:
    """Return a function that writes a DICOM series."""
    return lambda path: write_series(path, shape, **{"spacing": (1.0, 1.0, 2.5), **values})


def edited(edit: Callable[[list[Path]], object], **values) -> Callable[[Path], None]:
    """Return a function that writes a DICOM series and changes its files, which are in the order of the slices."""

    def write(path: Path) -> None:
        series(**values)(path)
        edit(sorted(path.iterdir(), key=lambda file: int(file.stem.rsplit("_", 1)[1])))

    return write


def change(file: Path, **values) -> Path:
    """Change tags of a file."""
    ds = pydicom.dcmread(file)
    for tag, value in values.items():
        setattr(ds, tag, value)
    ds.save_as(file)
    return file


def copy(file: Path, name: str, **values) -> Path:
    """Copy a file with other tags."""
    return change(Path(shutil.copy(file, file.with_name(name))), **values)


def scout(files: list[Path]) -> None:
    values = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SOPInstanceUID": generate_uid()}
    copy(files[0], "scout.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], **values)


def doubled(files: list[Path]) -> None:
    copy(files[2], "other.dcm", SOPInstanceUID=generate_uid(), RescaleIntercept=-1000)


def echoes(path: Path) -> None:
    for echo in (1, 2):
        series()(path / f"echo{echo}")
    for file in path.rglob("*.dcm"):
        change(file, EchoNumbers=int(file.parent.name[-1]))


def without_preamble(files: list[Path]) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[132:])


def compressed(files: list[Path]) -> None:
    for file in files:
        ds = pydicom.dcmread(file)
        ds.compress(RLELossless)
        ds.save_as(file)


def inverted(files: list[Path]) -> None:
    for file in files:
        change(file, PhotometricInterpretation="MONOCHROME1")


def cut(files: list[Path]) -> None:
    files[1].write_bytes(files[1].read_bytes()[:-40])


def archive(path: Path, name: str = "{}") -> None:
    """Write a zip of a series."""
    folder = path.with_suffix(".parts")
    series()(folder)
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(folder.iterdir()):
            file.write(part, name.format(part.name))
    shutil.rmtree(folder)


def enhanced(path: Path) -> None:
    write_enhanced(path, np.arange(6) * 2.5, shape=SHAPE[:2])
    ds = pydicom.dcmread(path)
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleIntercept = -1024
    ds.save_as(path)


def enhanced_series(path: Path) -> None:
    path.mkdir()
    enhanced(path / "ct.dcm")


def sub_folders(path: Path) -> None:
    series()(path / "study" / "series")


def contours(path: Path) -> None:
    path.mkdir()
    write_structure_set(path)


def volume(write: Callable[..., object], change: Callable[[np.ndarray], np.ndarray] = lambda v: v) -> Callable:
    """Return a function that writes a CT as one file."""

    def make(path: Path) -> None:
        array = np.random.default_rng(0).normal(40, 200, SHAPE).clip(-1000, 2000)
        array[:2] = -1000
        write(path, change(array.astype(np.float32)), np.diag([1.0, 1.0, 2.5, 1.0]))

    return make


def shortened(path: Path) -> None:
    volume(write_nifti)(path)
    path.write_bytes(path.read_bytes()[:-200])


def stripped(array: np.ndarray) -> np.ndarray:
    array[:2] = np.nan
    return array


def tissue() -> np.ndarray:
    return stained((SIDE, SIDE), (50, 50, 550, 550))


def features(path: Path) -> None:
    """Write features as TRIDENT does."""
    coords = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) * 64
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(0).normal(size=(1, 16, 12)).astype(np.float32)
        dataset = file.create_dataset("coords", data=coords)
        dataset.attrs.update(patch_size=32, patch_size_level0=64, level0_magnification=20, target_magnification=10)


SERIES, ENHANCED = "^DICOM series$", "^enhanced DICOM$"
IRREGULAR = "--irregular allow"
SCANS = {
    "axial": Expected(series(), SERIES),
    "oblique": Expected(series(orientation=(0.8, 0.6, 0, 0, 0, -1)), SERIES),
    "sagittal": Expected(series(orientation=(0, 1, 0, 0, 0, -1)), SERIES),
    "rounded_positions": Expected(series(heights=np.round(np.arange(6) * 0.625, 1)), SERIES),
    "tilted": Expected(series(shift=0.5), SERIES, "slices stacked along their normal, .*gantry tilt", IRREGULAR),
    "missing_slice": Expected(
        series(heights=np.array([0, 2.5, 5, 10, 12.5, 15])), SERIES, "1 slice seems missing, 2.5 mm", IRREGULAR
    ),
    "varying_steps": Expected(
        series(heights=np.array([0, 1, 3, 6, 10, 15.0])), SERIES, "evenly spaced slices, got a step of", IRREGULAR
    ),
    "doubled_slice": Expected(edited(doubled), SERIES, "one slice per position, got two at 35 mm"),
    "two_series": Expected(
        lambda path: [series(series=k)(path) for k in (1, 2)], SERIES, "one series, got 2: 6 slices", "--series NUMBER"
    ),
    "two_echoes": Expected(echoes, SERIES, "one stack of slices, got 2 in a series: .*echo 1", "--stack NUMBER"),
    "with_scout": Expected(edited(scout), SERIES, notes="^1 scout was left out"),
    "copied_slice": Expected(
        edited(lambda files: copy(files[3], "copy.dcm")), SERIES, notes="^1 exact copy of a slice was left out"
    ),
    "sub_folders": Expected(sub_folders, SERIES),
    "no_preamble": Expected(edited(without_preamble), SERIES),
    "rle": Expected(edited(compressed), SERIES),
    "inverted": Expected(edited(inverted), SERIES, notes="MONOCHROME1"),
    "cut_slice": Expected(edited(cut), SERIES, "undamaged scan, got 1 DICOM file with pixels that are cut"),
    "contours": Expected(contours, "^folder$", "one series of DICOM image slices, got 1 of modality RTSTRUCT"),
    "empty": Expected(Path.mkdir, "^folder$", "one series of DICOM image slices, got no DICOM object"),
    "zipped.zip": Expected(archive, "^zip of a DICOM series$"),
    "escaping.zip": Expected(lambda path: archive(path, "../{}"), "^zip$", "inside its folder, got one that leads"),
    "enhanced.dcm": Expected(enhanced, ENHANCED),
    "enhanced_folder": Expected(enhanced_series, ENHANCED),
    "volume.nii.gz": Expected(volume(write_nifti), "^NIfTI$"),
    "volume.nrrd": Expected(volume(write_nrrd), "^NRRD$"),
    "volume.mha": Expected(volume(write_mha), "^MetaImage$"),
    "bytes.nii.gz": Expected(
        volume(write_nifti, lambda v: v.clip(0, 255)),
        "^NIfTI$",
        "Hounsfield units, .* got values 0 to 255",
        "--normalization percentile",
    ),
    "stripped.nii.gz": Expected(
        volume(write_nifti, stripped), "^NIfTI$", "finite voxels, got 96 that are NaN", "--fill_nan lowest"
    ),
    "cut.nii.gz": Expected(shortened, "^NIfTI$", "undamaged scan, got a NIfTI file"),
    "mr": Expected(series(Modality="MR"), SERIES, "a CT .* got modality MR", "--normalization percentile"),
}
SLIDES = {
    "aperio.svs": Expected(lambda path: write_aperio(path, tissue()), "^Aperio SVS$"),
    "leica.scn": Expected(
        lambda path: write_scn(path, tissue(), plane=(4000, 4000), offset=(2000, 1000)), "^Leica SCN$"
    ),
    "dicom_slide": Expected(lambda path: write_dicom(path, tissue(), 0.5), "^DICOM WSI$"),
    "ome.ome.tif": Expected(lambda path: write_ome(path, tissue()), "^OME-TIFF$"),
    "akoya.qptiff": Expected(lambda path: write_qptiff(path, tissue()), "^Akoya QPTIFF$"),
    "unscaled.tif": Expected(
        lambda path: write_slide(path, tissue(), mpp=None),
        "^generic TIFF$",
        "must state its mpp, got none",
        "--slide_mpp",
    ),
    "big_endian.tif": Expected(
        lambda path: write_tiff(path, tissue(), byteorder=">"), "^generic TIFF$", notes="read by tifffile"
    ),
    "cut.tif": Expected(lambda path: write_truncated(path, tissue()), "^TIFF$", "got a TIFF file that is cut off"),
    "glass.tif": Expected(
        lambda path: write_tiff(path, stained((SIDE, SIDE))), "^generic TIFF$", "^empty$", notes="tissue fraction"
    ),
    "features.h5": Expected(features, "^TRIDENT features$", notes="slide_mpp 0.5 is derived"),
}


def write_mixed_folder(folder: Path) -> Path:
    """Write all scans and slides into one folder."""
    folder.mkdir()
    for name, case in (SCANS | SLIDES).items():
        case.write(folder / name)
    return folder
