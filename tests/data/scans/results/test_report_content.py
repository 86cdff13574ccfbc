"""Tests of the content of reports: template, regions, and how programs print it."""

from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, SegmentationStorage, generate_uid

from monai_mil_ext.data.scans.results.model_identity import ModelIdentity
from monai_mil_ext.data.scans.results.report_content import ListedSlice, report_content


def header(rows=5, columns=6):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Rows, ds.Columns = CTImageStorage, generate_uid(), rows, columns
    ds.Modality = "CT"
    return ds


def content(*slices, probabilities=None, predicted="", guarantee="", segmentation=None):
    model = ModelIdentity.of({"name": "tumor", "version": "2"})
    return report_content("1.2.3", slices, probabilities or {}, predicted, guarantee, model, segmentation)


def walk(items):
    for item in items:
        yield item
        yield from walk(item.get("ContentSequence", ()))


def test_report_content_frames_each_slice():
    report = content(ListedSlice(header(), 1, 0.5), ListedSlice(header(3, 4), 7, 0.25, is_chosen=True))
    groups = report.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["slice of rank 1", "slice of rank 7"]
    frames = [group.roi.value.astype(int) for group in groups]
    assert [frame.max(axis=0).tolist() for frame in frames] == [[6, 5], [4, 3]]
    assert all((frame[0] == frame[-1]).all() and len(frame) == 5 for frame in frames)
    assert len({group.tracking_uid for group in groups}) == 2
    chosen = ["Slice is in the set" in {item.name.meaning for item in walk(group)} for group in groups]
    assert chosen == [False, True]


def test_report_content_has_only_what_is_known():
    parts = [item.name.meaning for item in content(ListedSlice(header(), 1, 0.5))[0].ContentSequence]
    assert "Imaging Measurements" in parts
    assert {"Derived Imaging Measurements", "Qualitative Evaluations"} & set(parts) == set()


def test_report_content_refers_to_all_segments_by_one_reference():
    segmentation = SimpleNamespace(SOPClassUID=SegmentationStorage, SOPInstanceUID="1.2.9", SegmentSequence=[])
    report = content(ListedSlice(header(), 1, 0.5), probabilities={"a": 0.25, "b": 0.75}, segmentation=segmentation)
    inferred = [item for item in walk(report) if item.relationship_type == hd.sr.RelationshipTypeValues.INFERRED_FROM]
    assert [image.referenced_sop_instance_uid for image in inferred] == ["1.2.9", "1.2.9"]


@pytest.mark.parametrize("name", ["Derived Imaging Measurements", "Measurement Group", "Imaging Measurement Report"])
def test_report_content_is_no_running_text(name):
    """In a continuous container, programs print a number without its name."""
    report = content(ListedSlice(header(), 1, np.float64(0.5)), probabilities={"a": 0.5})
    found = [item.ContinuityOfContent for item in walk(report) if item.name.meaning == name]
    assert found == ["SEPARATE"]
