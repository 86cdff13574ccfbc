"""Tests of DicomWriter: geometry, slices and study, read back by highdicom and pydicom."""

import warnings
from functools import partial

import highdicom as hd
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pydicom import dcmread
from pydicom.sr.codedict import codes

from monai_mil_ext.data import DicomWriter, ScoreBands, find_series
from monai_mil_ext.transforms import LoadScan, SliceBag, SliceScoresToVolume
from tests.scans import SECRETS, write_enhanced, write_nifti, write_series

FRAME = "1.2.826.0.1.77"
SCORES = torch.tensor([0.1, 0.5, 0.0, 0.4])
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "upside down": (1, 0, 0, 0, -1, 0),
    "oblique": (0.8, 0.6, 0, -0.6, 0.8, 0),
}


def answered(folder, orientation="axial", plane="axial", **tags):
    """Write a series and return it with the scores of its slices, through loading, slicing and inversion."""
    write_series(folder, orientation=ORIENTATIONS[orientation], FrameOfReferenceUID=FRAME, **tags)
    slices = SliceBag(plane)(LoadScan()(folder))
    scores = SCORES if len(slices.bag) == 4 else torch.arange(1.0, len(slices.bag) + 1)
    return SliceScoresToVolume(plane)(scores, slices.slice_index, slices.affine, slices.spatial_shape), slices


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dicom_writer_segmentation_marks_the_slices_of_the_bands(tmp_path, orientation):
    volume, _ = answered(tmp_path / "s", orientation)
    assert DicomWriter(tmp_path / "s").write_segmentation(tmp_path / "seg.dcm", volume, ScoreBands(top_k=(1, 2)))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["slices ranked 1 to 1", "slices ranked 2 to 2"]
    headers = {str(entry.path): dcmread(entry.path) for entry in find_series(tmp_path / "s")}
    # slices of the bag ascend in the patient, whatever the order of the series
    ascending = sorted(headers.values(), key=lambda ds: ds.ImagePositionPatient[2])
    expected = {1: ascending[1], 2: ascending[3]}
    assert seg.NumberOfFrames == 2
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = expected[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert frame.shape == (source.Rows, source.Columns)
        assert frame.all()
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation_read = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert orientation_read == ascending[0].ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == ascending[0].PixelSpacing


def test_dicom_writer_refers_to_the_slices_of_the_chosen_stack(tmp_path):
    tags = {"FrameOfReferenceUID": FRAME}
    write_series(tmp_path / "s" / "a", EchoNumbers=1, **tags)
    write_series(tmp_path / "s" / "b", EchoNumbers=2, **tags)
    with pytest.raises(ValueError, match=r"got 2 in a series: 1: 4 slices \(echo 1\)"):
        DicomWriter(tmp_path / "s")
    headers = DicomWriter(tmp_path / "s", stack=2).headers
    assert [header.EchoNumbers for header in headers] == [2] * 4


def test_dicom_writer_refuses_an_enhanced_object(tmp_path):
    """Its frames would have to be referred to by number."""
    (tmp_path / "s").mkdir()
    write_enhanced(tmp_path / "s" / "e.dcm", [0, 5, 10])
    with pytest.raises(ValueError, match="a series of single slices for results as DICOM, got an enhanced object"):
        DicomWriter(tmp_path / "s")


def test_dicom_writer_segmentation_belongs_to_the_study(tmp_path):
    volume, _ = answered(tmp_path / "s")
    results = DicomWriter(tmp_path / "s")
    results.write_segmentation(tmp_path / "seg.dcm", volume)
    results.write_report(tmp_path / "sr.dcm", volume, 0.75)
    source = results.headers[0]
    for name in ("seg.dcm", "sr.dcm"):
        ds = dcmread(tmp_path / name)
        for tag in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate"):
            assert ds[tag].value == source[tag].value
        assert ds.SeriesInstanceUID != source.SeriesInstanceUID
        assert ds.SeriesDescription.endswith("research use only")
    assert dcmread(tmp_path / "seg.dcm").FrameOfReferenceUID == FRAME
    assert dcmread(tmp_path / "sr.dcm").SOPClassUID.name == "Comprehensive SR Storage"


def test_dicom_writer_segments_have_standard_codes(tmp_path):
    volume, _ = answered(tmp_path / "s")
    DicomWriter(tmp_path / "s").write_segmentation(tmp_path / "seg.dcm", volume)
    for segment in hd.seg.segread(tmp_path / "seg.dcm").SegmentSequence:
        for coded, code in (
            (segment.segmented_property_category, codes.SCT.SpatialAndRelationalConcept),
            (segment.segmented_property_type, codes.DCM.SelectedRegion),
        ):
            assert (coded.value, coded.scheme_designator, coded.meaning) == (
                code.value,
                code.scheme_designator,
                code.meaning,
            )


def test_dicom_writer_segments_have_colors_of_their_own(tmp_path):
    volume, _ = answered(tmp_path / "s")
    DicomWriter(tmp_path / "s").write_segmentation(tmp_path / "seg.dcm", volume, ScoreBands(top_k=(1, 2, 3)))
    colors = [segment.RecommendedDisplayCIELabValue for segment in dcmread(tmp_path / "seg.dcm").SegmentSequence]
    rgb = [hd.color.CIELabColor.from_dicom_value(color).to_rgb() for color in colors]
    np.testing.assert_allclose(rgb, [(255, 222, 51), (230, 120, 20), (0, 114, 178)], atol=2)


def test_dicom_writer_report_has_probability_and_top_slices(tmp_path):
    volume, _ = answered(tmp_path / "s", "upside down")
    DicomWriter(tmp_path / "s").write_report(tmp_path / "sr.dcm", volume, 0.75, top_k=3)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_image_measurement_groups()
    values = [
        (g.tracking_identifier, g.get_measurements()[0].name.meaning, g.get_measurements()[0].value) for g in groups
    ]
    assert [(name, what) for name, what, _ in values] == [
        ("scan", "Probability of the positive class"),
        ("slice of rank 1", "Attention of a slice"),
        ("slice of rank 2", "Attention of a slice"),
        ("slice of rank 3", "Attention of a slice"),
    ]
    assert [value for _, _, value in values] == pytest.approx([0.75, 0.5, 0.4, 0.1])
    ascending = sorted((dcmread(s.path) for s in find_series(tmp_path / "s")), key=lambda d: d.ImagePositionPatient[2])
    units = [group.get_measurements()[0].unit for group in groups]
    assert {unit.scheme_designator for unit in units} == {"UCUM"}
    assert [unit.value for unit in units] == ["1", *["{fraction}"] * 3]
    assert units[1].meaning == "fraction of the attention of all slices"
    assert [group.finding_type is None for group in groups] == [False, True, True, True]
    referenced = [g.source_images[0].referenced_sop_instance_uid for g in groups[1:]]
    assert referenced == [ascending[k].SOPInstanceUID for k in (1, 3, 0)]


def test_dicom_writer_names_the_model_and_the_class(tmp_path):
    volume, _ = answered(tmp_path / "s")
    note = "tumor 2, weights 0123456789ab; mismatch: trained on modality MR, got modality CT"
    results = DicomWriter(tmp_path / "s", None, {"name": "tumor", "version": "2"}, note, "malignant")
    results.write_segmentation(tmp_path / "seg.dcm", volume)
    results.write_report(tmp_path / "sr.dcm", volume, 0.75)
    algorithm = dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("tumor", "2")
    assert note in algorithm.AlgorithmParameters
    (group, *_) = hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert group.get_measurements()[0].name.meaning == "Probability of malignant"
    assert (group.finding_type.meaning, group.finding_type.scheme_designator) == ("malignant", "99MONAIMIL")
    assert note.encode() in (tmp_path / "sr.dcm").read_bytes()
    other = DicomWriter(tmp_path / "s")
    other.write_report(tmp_path / "other.dcm", volume, 0.75)
    assert dcmread(tmp_path / "other.dcm").SOPInstanceUID != dcmread(tmp_path / "sr.dcm").SOPInstanceUID


def test_dicom_writer_uids_depend_on_the_content(tmp_path):
    volume, _ = answered(tmp_path / "s")
    results = DicomWriter(tmp_path / "s")
    for name, scale in (("a", 1), ("b", 1), ("c", 2)):
        results.write_segmentation(tmp_path / f"{name}.dcm", volume * scale)
    a, b, c = (dcmread(tmp_path / f"{name}.dcm") for name in "abc")
    assert (a.SOPInstanceUID, a.SeriesInstanceUID) == (b.SOPInstanceUID, b.SeriesInstanceUID)
    assert a.SOPInstanceUID != c.SOPInstanceUID
    assert a.SeriesInstanceUID != c.SeriesInstanceUID


def test_dicom_writer_writes_no_segmentation_without_slices(tmp_path):
    volume, _ = answered(tmp_path / "s")
    results = DicomWriter(tmp_path / "s")
    assert not results.write_segmentation(tmp_path / "seg.dcm", volume, ScoreBands(thresholds=(0.9,)))
    assert not (tmp_path / "seg.dcm").exists()


def test_dicom_writer_does_not_print_patient_names(tmp_path, caplog, capfd):
    volume, _ = answered(tmp_path / "s", PatientName="Secretname")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        DicomWriter(tmp_path / "s").write_segmentation(tmp_path / "seg.dcm", volume)
        DicomWriter(tmp_path / "s").write_report(tmp_path / "sr.dcm", volume, 0.5)
    printed = capfd.readouterr()
    output = [caplog.text, printed.out, printed.err, *(str(w.message) for w in seen)]
    assert [s for s in ("Secretname", SECRETS["PatientID"]) for text in output if s in text] == []


def test_dicom_writer_needs_a_dicom_folder(tmp_path):
    path = write_nifti(tmp_path / "scan.nii.gz", np.zeros((3, 3, 3), np.float32), np.eye(4))
    with pytest.raises(ValueError, match=r"`source` must be the DICOM folder of the scan .* got a single file; NIfTI"):
        DicomWriter(path)


def test_dicom_writer_needs_a_frame_of_reference(tmp_path):
    write_series(tmp_path / "s")
    with pytest.raises(ValueError, match=r"got none of \['FrameOfReferenceUID'\]"):
        DicomWriter(tmp_path / "s")


def test_dicom_writer_refuses_volumes_of_another_scan_or_plane(tmp_path):
    volume, _ = answered(tmp_path / "s")
    results = DicomWriter(tmp_path / "s")
    moved = volume.affine.clone()
    moved[2, 3] += 2.5
    with pytest.raises(ValueError, match="`volume` must have the voxels of the series"):
        results.write_segmentation(tmp_path / "seg.dcm", MetaTensor(volume.as_tensor(), affine=moved))
    coronal, _ = answered(tmp_path / "c", plane="coronal")
    with pytest.raises(ValueError, match=r"one score for each slice of the series, .* another plane"):
        DicomWriter(tmp_path / "c").write_segmentation(tmp_path / "seg.dcm", coronal)
    with pytest.raises(ValueError, match=r"`probability` must be in \[0, 1\], got 1.5"):
        results.write_report(tmp_path / "sr.dcm", volume, 1.5)
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize("thickness", [None, 0, ""])
def test_dicom_writer_takes_the_distance_of_slices_for_a_missing_thickness(tmp_path, thickness):
    volume, _ = answered(tmp_path / "s", SliceThickness=thickness)
    writer = DicomWriter(tmp_path / "s")
    writer.write_segmentation(tmp_path / "seg.dcm", volume)
    writer.write_report(tmp_path / "sr.dcm", volume, 0.75)
    (measures,) = dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 2.5


@pytest.mark.parametrize("tag", ["Modality", "SOPInstanceUID", "SOPClassUID", "SeriesNumber", "InstanceNumber"])
@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_dicom_writer_refuses_a_series_without_a_header_or_does_without_it(tmp_path, tag, kind):
    volume, _ = answered(tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        ds = dcmread(path)
        del ds[tag]
        ds.save_as(path)
    if tag in ("SOPInstanceUID", "SOPClassUID", "Modality"):
        with pytest.raises(ValueError, match=rf"for results as DICOM, got none of \['{tag}'\]"):
            DicomWriter(tmp_path / "s")
    else:
        writer = DicomWriter(tmp_path / "s")
        write = writer.write_segmentation if kind == "seg" else partial(writer.write_report, probability=0.75)
        write(tmp_path / "x.dcm", volume)
        assert dcmread(tmp_path / "x.dcm").StudyInstanceUID


def test_dicom_writer_turns_errors_of_highdicom_into_one_of_the_series(tmp_path, monkeypatch):
    volume, _ = answered(tmp_path / "s")
    writer = DicomWriter(tmp_path / "s")

    def fail(*args, **kwargs):
        raise AttributeError(f"'FileDataset' of {SECRETS['PatientName']} has no attribute 'Laterality'")

    monkeypatch.setattr(hd.seg, "Segmentation", fail)
    monkeypatch.setattr(hd.sr, "ComprehensiveSR", fail)
    for write in (writer.write_segmentation, partial(writer.write_report, probability=0.75)):
        with pytest.raises(ValueError, match=r"results as DICOM need, got none of Laterality\.$"):
            write(tmp_path / "x.dcm", volume)


@pytest.mark.parametrize(
    ("heights", "shift"), [([0, 2.5, 7.5, 10], 0.0), ([0, 2.5, 5, 7.5], 0.9), ([0, 2, 5, 10], 0.3)]
)
def test_dicom_writer_refers_to_the_slices_of_an_irregular_series(tmp_path, heights, shift):
    write_series(tmp_path / "s", heights=np.array(heights), shift=shift, FrameOfReferenceUID=FRAME)
    volumes = {}
    for irregular in ("allow", "resample"):
        slices = SliceBag()(LoadScan(irregular=irregular)(tmp_path / "s"))
        scores = torch.arange(1.0, len(slices.bag) + 1)
        volumes[irregular] = SliceScoresToVolume()(scores, slices.slice_index, *slices[4:])
    results = DicomWriter(tmp_path / "s")
    results.write_segmentation(tmp_path / "seg.dcm", volumes["allow"], ScoreBands(top_k=(1, 3)))
    ascending = sorted((dcmread(path) for path in (tmp_path / "s").iterdir()), key=lambda d: d.ImagePositionPatient[2])
    read = hd.seg.segread(tmp_path / "seg.dcm")
    frames = {}
    for group in read.PerFrameFunctionalGroupsSequence:
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        frames.setdefault(number, []).append(group.PlanePositionSequence[0].ImagePositionPatient)
    assert frames[1] == [ascending[3].ImagePositionPatient]
    assert sorted(frames[2], key=lambda place: place[2]) == [ds.ImagePositionPatient for ds in ascending[1:3]]
    with pytest.raises(ValueError, match="`volume` must have the voxels of the series"):
        results.write_segmentation(tmp_path / "seg.dcm", volumes["resample"])
    placeless = MetaTensor(volumes["allow"].as_tensor(), affine=volumes["allow"].affine)
    with pytest.raises(ValueError, match="`volume` must have the voxels of the series"):
        results.write_segmentation(tmp_path / "seg.dcm", placeless)
