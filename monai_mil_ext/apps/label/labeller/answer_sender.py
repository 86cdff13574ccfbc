"""Answers of a model as DICOM SEG in the archive from which the scan came."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.apps.label.errors import http_error
from monai_mil_ext.data.scans.dicom_files import write_attributes
from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["send_answer"]

OURS = "monai_mil_ext"  # by which the server knows that the segmentation is no label of a reader
SOURCE = "monailabel.datastore.utils"
COLORS = ((230, 159, 0), (86, 180, 233), (204, 121, 167))  # rank 1 stands out, and none is the green of "fine"


def send_answer(datastore: Any, image: str, file: str, answer: Mapping[str, Any]) -> str:
    """Store the bands of slices of an answer in the archive, and return the UID of the new series.

    Class, probability, name and version of the model are in the description of the series.

    Args:
        datastore: datastore of the archive.
        image: UID of the series of the scan.
        file: file of the label map.
        answer: JSON of the answer.

    Raises:
        HTTPException: 502 when the archive does not take it.
    """
    client = datastore._client
    folder = Path(datastore._datastore.image_path()) / image  # where the fetched series lies
    convert = importlib.import_module(f"{SOURCE}.convert").nifti_to_dicom_seg
    written = Path(convert(str(folder), file, _segments(answer)))
    try:
        _name(written, answer)
        series: str = importlib.import_module(f"{SOURCE}.dicom").dicom_web_upload_dcm(str(written), client)
    except Exception as error:
        raise http_error(f"the archive must take the answer, got {type(error).__name__}.", 502) from error
    finally:
        written.unlink(missing_ok=True)
    return series


def description(answer: Mapping[str, Any]) -> str:
    """Return class, probability and model of an answer in the 64 characters of a description.

    Example:
        >>> description({"prediction": [{"label": "tumor", "score": 0.875}], "trained_model": {"name": "scan_mil"}})
        'tumor 0.88 by scan_mil, research use only'
    """
    top = max(answer["prediction"], key=lambda entry: entry["score"])
    trained = answer.get("trained_model") or {}
    model = " ".join(str(trained[key]) for key in ("name", "version") if trained.get(key))
    return f"{top['label']} {top['score']:.2f} by {model or answer.get('model', OURS)}, research use only"[:64]


def _segments(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the segments in the form of dcmqi."""
    bands = sorted({entry["band"] for entry in answer["slices"] if entry["band"]})
    names = {number: name for name, number in answer["label_names"].items()}
    code = {"CodingSchemeDesignator": "SCT"}
    kind = {**code, "CodeValue": "91723000", "CodeMeaning": "Anatomical structure"}
    return [
        {
            "name": names[band],
            "model_name": description(answer),
            "segmentAttribute": {
                "labelID": band,
                "SegmentLabel": names[band],
                "SegmentDescription": description(answer),
                "SegmentAlgorithmType": "AUTOMATIC",
                "SegmentAlgorithmName": OURS,
                "SegmentedPropertyCategoryCodeSequence": kind,
                "SegmentedPropertyTypeCodeSequence": kind,
                "recommendedDisplayRGBValue": list(COLORS[(band - 1) % len(COLORS)]),
            },
        }
        for band in bands
    ]


def _name(file: Path, answer: Mapping[str, Any]) -> None:
    """Write into the object who made it."""
    trained = answer.get("trained_model") or {}
    write_attributes(
        file,
        Manufacturer=OURS,
        ManufacturerModelName=str(trained.get("name") or answer.get("model", OURS))[:64],
        SoftwareVersions=str(trained.get("version") or "unknown")[:64],
        SeriesDescription=description(answer),
        ContentCreatorName="",
        ContentDescription=RESEARCH_USE[:64],
    )
