"""Tiny files in the layout of three RSNA competitions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
SLOPE, INTERCEPT = 2.0, -1024.0


def write_dicom(path: Path, value: int, shape: tuple[int, int] = (4, 6), **tags) -> Path:
    """One slice whose stored pixels are ``value`` but for the first, which is 0."""
    pixels = np.full(shape, value, dtype=np.int16)
    pixels[0, 0] = 0
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "1.2.3"
    ds.PatientName = "Secretname^Jane"
    ds.Rows, ds.Columns = shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 1, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.RescaleSlope, ds.RescaleIntercept = SLOPE, INTERCEPT
    ds.PixelData = pixels.tobytes()
    with disable_value_validation():  # the UIDs of 2019, ID_..., are none by the standard
        for tag, content in tags.items():
            setattr(ds, tag, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        ds.save_as(path, enforce_file_format=True)
    return path


def write_table(path: Path, columns: list[str], rows: list[list]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def head(root: Path, scans: dict[str, tuple[str, list[int]]]) -> list[list]:
    """RSNA 2019: of each scan its patient and its labels from the lowest slice up; gives the rows of the table.

    Slice k of scan s is the file ``ID_<s>k<number>`` with number falling, so that names tell the wrong order.
    """
    rows = []
    for scan, (patient, labels) in scans.items():
        for k, label in enumerate(labels):
            name = f"ID_{scan}k{len(labels) - k}"
            place = [-100.0, -50.0, 7.5 + 5.0 * k - 40]
            tags = {"SeriesInstanceUID": f"ID_{scan}", "PatientID": f"ID_{patient}", "ImagePositionPatient": place}
            write_dicom(root / "stage_2_train" / f"{name}.dcm", 500 + k, **tags)
            rows += [[f"{name}_{kind}", label * (kind in ("any", "subdural"))] for kind in SUBTYPES]
    write_table(root / "stage_2_train.csv", ["ID", "Label"], rows)
    return rows


def chest(root: Path, scans: dict[str, list[int]]) -> list[list]:
    """RSNA 2020: of each scan its labels by InstanceNumber; gives the rows of the table."""
    rows = []
    for scan, labels in scans.items():
        for k, label in enumerate(labels):
            study, series, name = f"{scan}aa", f"{scan}bb", f"{scan}{len(labels) - k:02d}"
            write_dicom(root / "train" / study / series / f"{name}.dcm", 500 + k, InstanceNumber=k + 1)
            rows.append([study, series, name, label, 0])
    uids = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    write_table(root / "train.csv", [*uids, "pe_present_on_image", "negative_exam_for_pe"], rows)
    return rows


def abdomen(root: Path, scans: dict[tuple[int, int], dict[int, int]]) -> None:
    """RSNA 2023: of each patient and series the labels by the number of the file."""
    injuries = []
    for (patient, series), labels in scans.items():
        for number, label in labels.items():
            write_dicom(root / "train_images" / str(patient) / str(series) / f"{number}.dcm", 500 + number)
            injuries += [[patient, series, number, "Active_Extravasation"]] * label
    write_table(
        root / "image_level_labels.csv", ["patient_id", "series_id", "instance_number", "injury_name"], injuries
    )
    patients = sorted({patient for patient, _ in scans})
    write_table(root / "train.csv", ["patient_id", "bowel_healthy", "any_injury"], [[p, 1, 0] for p in patients])
    meta = [[p, s, 250.0, 0] for p, s in scans]
    write_table(root / "train_series_meta.csv", ["patient_id", "series_id", "aortic_hu", "incomplete_organ"], meta)


def vit_state(width=128, hidden=64, depth=2, patch=4, side=2, old=False):
    """A state dict as torchvision names it, small."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) * 0.2

    state = {
        "class_token": draw(1, 1, width),
        "conv_proj.weight": draw(width, 3, patch, patch),
        "conv_proj.bias": draw(width),
        "encoder.pos_embedding": draw(1, side * side + 1, width),
        "encoder.ln.weight": draw(width),
        "encoder.ln.bias": draw(width),
        "heads.head.weight": draw(10, width),
    }
    first, second = ("mlp.linear_1", "mlp.linear_2") if old else ("mlp.0", "mlp.3")
    for i in range(depth):
        own = {
            "ln_1": (width,), "ln_2": (width,), "self_attention.out_proj": (width, width),
            first: (hidden, width), second: (width, hidden),
        }  # fmt: skip
        for name, shape in own.items():
            state[f"encoder.layers.encoder_layer_{i}.{name}.weight"] = draw(*shape)
            state[f"encoder.layers.encoder_layer_{i}.{name}.bias"] = draw(shape[0])
        state[f"encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight"] = draw(3 * width, width)
        state[f"encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias"] = draw(3 * width)
    return state
