"""Content of the measurement report (TID 1500) of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE, optional_dependency

from .model_identity import LONGEST, MANUFACTURER, SCHEME, ModelIdentity, class_code

__all__ = ["ListedSlice", "device_observer", "report_content", "separate_items"]

hd = optional_dependency("dicom", "highdicom")  # takes long to import
generate_uid = optional_dependency("dicom", "pydicom.uid", "generate_uid")

UNITS = {
    "probability": ("1", "no units"),
    "attention": ("{fraction}", "fraction of the attention of all slices"),
    "rank": ("{rank}", "rank"),
}
CONTAINERS = {
    "derived": ("126011", "DCM", "Derived Imaging Measurements"),
    "evaluations": ("C0034375", "UMLS", "Qualitative Evaluations"),
}


class ListedSlice(NamedTuple):
    """Slice of a report: header, rank, score, and whether it is in the set that holds a lesion."""

    header: Any
    rank: int
    score: float
    is_chosen: bool = False


def report_content(
    uid: str,
    slices: Sequence[ListedSlice],
    probabilities: Mapping[str, float],
    predicted: str,
    guarantee: str,
    model: ModelIdentity,
    segmentation: Any = None,
) -> Any:
    """Return the content of a report.

    Each listed slice is a measurement group (TID 1410) with a frame around the slice as its region, since OHIF fails to
    open a report with a group that has no coordinates. What is measured of the scan has none, so it is outside of the
    groups: probabilities are derived measurements, and the predicted class and ``guarantee`` are evaluations.

    Args:
        uid: SOPInstanceUID of the report.
        slices: slices to list, at least one.
        probabilities: probability of each class, by its name.
        predicted: name of the predicted class; empty if it is not known.
        guarantee: sentence on the set of slices that holds a lesion; empty without one.
        model: identity of the model.
        segmentation: DICOM SEG to refer to.
    """
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device_observer()),
        procedure_reported=hd.sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[_group(uid, entry, model) for entry in slices],
        title=hd.sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )
    values = [_number("probability", f"Probability of {name}", p, model) for name, p in probabilities.items()]
    for value in values if segmentation is not None else ():
        value[0].ContentSequence.append(_reference(segmentation))
    texts = [_text("Set of slices", guarantee)] if guarantee else []
    codes = [_code("Predicted class", class_code(predicted))] if predicted else []
    root = content[0].ContentSequence
    root.extend(_container("derived", [item for value in values for item in value]))
    root.extend(_container("evaluations", [*codes, *texts]))
    separate_items(content)
    return content


def device_observer() -> Any:
    """Return this software as the observer of a document."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[MANUFACTURER]), manufacturer_name=MANUFACTURER, name=RESEARCH_USE
    )
    device_type = hd.sr.CodedConcept("121007", "DCM", "Device")
    return hd.sr.ObserverContext(observer_type=device_type, observer_identifying_attributes=device)


def _group(uid: str, entry: ListedSlice, model: ModelIdentity) -> Any:
    """Return the measurement group of a slice: its attention, which viewers show first, and its rank.

    Names are short, since OHIF writes them beside the frame, where little room is left.
    """
    name = f"slice of rank {entry.rank}"
    columns, rows = entry.header.Columns, entry.header.Rows
    frame = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows), (0, 0)])
    in_set = (_own("in set", "Slice is in the set"), hd.sr.CodedConcept("373066001", "SCT", "Yes"))
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(entropy_srcs=[uid, name]), identifier=name),
        referenced_region=hd.sr.ImageRegion(
            hd.sr.GraphicTypeValues.POLYLINE, frame, hd.sr.SourceImageForRegion.from_source_image(entry.header)
        ),
        algorithm_id=model.for_report(),
        measurements=[
            _number("attention", "Attention", entry.score),
            _number("rank", "Rank", entry.rank),
        ],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(*in_set)] if entry.is_chosen else None,
    )


def _number(quantity: str, meaning: str, value: float, model: ModelIdentity | None = None) -> Any:
    unit = hd.sr.CodedConcept(UNITS[quantity][0], "UCUM", UNITS[quantity][1])
    algorithm = None if model is None else model.for_report()
    return hd.sr.Measurement(_own(quantity, meaning), value, unit, algorithm_id=algorithm)


def _own(value: str, meaning: str) -> Any:
    return hd.sr.CodedConcept(value, SCHEME, meaning[:LONGEST])


def _text(name: str, text: str) -> Any:
    return hd.sr.TextContentItem(_own(name.lower()[:16], name), text, hd.sr.RelationshipTypeValues.CONTAINS)


def _code(name: str, value: Any) -> Any:
    return hd.sr.CodeContentItem(_own(name.lower()[:16], name), value, hd.sr.RelationshipTypeValues.CONTAINS)


def _reference(segmentation: Any) -> Any:
    """Return a reference to all segments."""
    return hd.sr.ImageContentItem(
        hd.sr.CodedConcept("121191", "DCM", "Referenced Segment"),
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        relationship_type=hd.sr.RelationshipTypeValues.INFERRED_FROM,
    )


def _container(kind: str, items: Sequence[Any]) -> list[Any]:
    """Return a container with ``items``, or none without them."""
    if not items:
        return []
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    container = hd.sr.ContainerContentItem(hd.sr.CodedConcept(*CONTAINERS[kind]), relationship_type=contains)
    container.ContentSequence = hd.sr.ContentSequence(items)
    return [container]


def separate_items(items: Any) -> None:
    """Mark the items of all containers as separate, not as a running text, in which programs omit their names."""
    for item in items:
        if "ContinuityOfContent" in item:
            item.ContinuityOfContent = "SEPARATE"
        separate_items(item.get("ContentSequence", ()))
