"""DICOM objects of a scan that every archive shows: a key object selection and a picture as secondary capture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

from .model_identity import MANUFACTURER
from .report_content import device_observer, separate_items

__all__ = ["key_object_selection", "secondary_capture"]

hd = optional_dependency("dicom", "highdicom")  # takes long to import
explicit = optional_dependency("dicom", "pydicom.uid")


def key_object_selection(headers: Sequence[Any], description: str, identity: Mapping[str, Any]) -> Any:
    """Return a selection (TID 2010, "Of Interest") of the slices with ``headers``, in their order."""
    content = hd.ko.KeyObjectSelection(
        document_title=hd.sr.CodedConcept("113000", "DCM", "Of Interest"),
        referenced_objects=headers,
        observer_device_context=device_observer(),
        description=description,
    )
    separate_items(content)
    return hd.ko.KeyObjectSelectionDocument(headers, content, manufacturer=MANUFACTURER, **identity)


def secondary_capture(header: Any, picture: NDArray[np.uint8], identity: Mapping[str, Any]) -> Any:
    """Return a picture (H, W, 3) of the scan whose slices have a ``header``; it has no orientation of its own."""
    capture = hd.sc.SCImage.from_ref_dataset(
        header,
        np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),  # required here; a page has none
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=explicit.ExplicitVRLittleEndian,
        **identity,
    )
    capture.PatientOrientation = ""
    capture.Laterality = header.get("Laterality") or ""
    capture.BurnedInAnnotation = "NO"  # the picture has the case ID, and no name of the patient
    capture.copy_patient_and_study_information(header)
    return capture
