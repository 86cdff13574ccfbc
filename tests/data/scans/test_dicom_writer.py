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

import monai_mil_ext
from monai_mil_ext.data import DicomWriter, ScanResult, ScoreBands, find_series
from monai_mil_ext.transforms import LoadScan, SliceBag, SliceScoresToVolume
from tests.dicom_results import FRAME, ORIENTATIONS, answered, of_scan, result_of
from tests.scans import SECRETS, write_enhanced, write_nifti, write_series


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dicom_writer_segmentation_marks_the_slices_of_the_bands(tmp_path, orientation):
    volume, _ = answered(tmp_path / "s", orientation)
    assert DicomWriter(tmp_path / "s").write_segmentation(tmp_path / "seg.dcm", volume, ScoreBands(top_k=(1, 2)))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["slice of rank 1", "slice of rank 2"]
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
    lightness = [color[0] for color in colors]
    assert lightness == sorted(lightness, reverse=True)  # rank 1 stands out from the gray image
    assert [(r, g, b) for r, g, b in rgb if g > max(r, b)] == []  # green reads as "fine"


def test_dicom_writer_report_has_probability_and_top_slices(tmp_path):
    volume, _ = answered(tmp_path / "s", "upside down")
    DicomWriter(tmp_path / "s").write_report(tmp_path / "sr.dcm", volume, 0.75, top_k=3)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [f"slice of rank {rank}" for rank in (1, 2, 3)]
    attention, rank = zip(*(group.get_measurements() for group in groups), strict=True)
    assert [value.value for value in attention] == pytest.approx([0.5, 0.4, 0.1])
    assert [value.value for value in rank] == [1, 2, 3]
    assert {value.name.meaning for value in attention} == {"Attention"}
    assert {value.unit.meaning for value in attention} == {"fraction of the attention of all slices"}
    assert [value.unit.value for value in (attention[0], rank[0])] == ["{fraction}", "{rank}"]
    ascending = sorted((dcmread(s.path) for s in find_series(tmp_path / "s")), key=lambda d: d.ImagePositionPatient[2])
    regions = [group.roi for group in groups]
    referenced = [region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for region in regions]
    assert referenced == [ascending[k].SOPInstanceUID for k in (1, 3, 0)]
    assert regions[0].value.tolist() == [[0, 0], [6, 0], [6, 5], [0, 5], [0, 0]]
    (probability,) = of_scan(report, "Derived Imaging Measurements")
    assert probability.name.meaning == "Probability of the positive class"
    assert (probability.value, probability.unit.value) == (0.75, "1")


def test_dicom_writer_report_has_coordinates_in_every_group(tmp_path):
    """OHIF reads them without a check, and fails to open the report otherwise."""
    volume, _ = answered(tmp_path / "s")
    DicomWriter(tmp_path / "s").write(tmp_path, "c", ScanResult(volume * 0, {"a": 0.5}), ["sr"])
    report = hd.sr.srread(tmp_path / "c_sr.dcm")
    groups = [item for item in of_scan(report, "Imaging Measurements") if item.name.meaning == "Measurement Group"]
    kinds = [{str(item.ValueType) for item in group.ContentSequence} for group in groups]
    assert len(kinds) == 1  # the first slice, though no score is positive
    assert all("SCOORD" in kind for kind in kinds)
    outside = [item for item in report.content[0].ContentSequence if item.name.meaning != "Imaging Measurements"]
    assert [item for item in outside if item.name.meaning == "Measurement Group"] == []


def test_dicom_writer_report_states_class_and_set_outside_of_the_groups(tmp_path):
    result = result_of(tmp_path / "s")
    DicomWriter(tmp_path / "s").write(tmp_path, "c", result, ["sr"])
    report = hd.sr.srread(tmp_path / "c_sr.dcm")
    derived = of_scan(report, "Derived Imaging Measurements")
    assert [(item.name.meaning, item.value) for item in derived] == [
        ("Probability of benign", 0.25),
        ("Probability of malignant", 0.75),
    ]
    predicted, sentence = of_scan(report, "Qualitative Evaluations")
    assert (predicted.name.meaning, predicted.value.meaning) == ("Predicted class", "malignant")
    assert (sentence.name.meaning, sentence.value) == ("Set of slices", "If it has a lesion, so have these.")
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["slice of rank 1", "slice of rank 2"]  # top_k is 1
    for group in groups:
        stated = [
            (evaluation.name.meaning, evaluation.value.meaning) for evaluation in group.get_qualitative_evaluations()
        ]
        assert ("Slice is in the set", "Yes") in stated


def test_dicom_writer_objects_refer_to_one_another(tmp_path):
    result = result_of(tmp_path / "s")
    files = DicomWriter(tmp_path / "s").write(tmp_path, "c", result, ["sr", "seg"])
    assert [file.name for file in files] == ["c_seg.dcm", "c_sr.dcm"]
    seg, report = (dcmread(file) for file in files)
    (reference,) = seg.ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == report.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == report.SOPClassUID
    probability = of_scan(hd.sr.srread(files[1]), "Derived Imaging Measurements")[1]
    (image,) = [item for item in probability.ContentSequence if item.ValueType == "IMAGE"]
    assert image.referenced_sop_instance_uid == seg.SOPInstanceUID
    evidence = [
        item.SeriesInstanceUID for item in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    ]
    assert seg.SeriesInstanceUID in evidence


def test_dicom_writer_selects_the_listed_slices_as_key_objects(tmp_path):
    result = result_of(tmp_path / "s", top_k=3)
    writer = DicomWriter(tmp_path / "s")
    writer.write(tmp_path, "c", result, ["ko"])
    ds = dcmread(tmp_path / "c_ko.dcm")
    assert ds.SOPClassUID.name == "Key Object Selection Document Storage"
    assert ds.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    images = [item.ReferencedSOPSequence[0] for item in ds.ContentSequence if item.ValueType == "IMAGE"]
    ascending = sorted(writer.headers, key=lambda header: header.ImagePositionPatient[2])
    assert [image.ReferencedSOPInstanceUID for image in images] == [ascending[k].SOPInstanceUID for k in (1, 3, 0)]
    texts = {item.ConceptNameCodeSequence[0].CodeMeaning: item.get("TextValue") for item in ds.ContentSequence}
    assert texts["Key Object Description"].startswith(
        "Probability: benign 0.25, malignant 0.75. If it has a lesion, so have these."
    )


def test_dicom_writer_captures_a_picture(tmp_path):
    result = result_of(tmp_path / "s")
    writer = DicomWriter(tmp_path / "s")
    picture = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    writer.write(tmp_path, "c", result, ["sc"], picture)
    ds = dcmread(tmp_path / "c_sc.dcm")
    assert (ds.pixel_array == picture).all()
    assert (ds.SOPClassUID.name, ds.BurnedInAnnotation) == ("Secondary Capture Image Storage", "NO")
    assert ds.PatientID == writer.headers[0].PatientID
    other = tmp_path / "other"
    other.mkdir()
    writer.write(other, "c", result, ["sc"], picture + 1)
    assert dcmread(other / "c_sc.dcm").SOPInstanceUID != ds.SOPInstanceUID
    with pytest.raises(ValueError, match="`picture` must be given for 'sc', got None"):
        writer.write(tmp_path, "c", result, ["sc"])


def test_dicom_writer_says_class_and_probability_in_every_object(tmp_path):
    names = {"benign": 0.25, "malignant tumor of the lung": 0.75}
    result = result_of(tmp_path / "s", probabilities=names, predicted="malignant tumor of the lung")
    picture = np.zeros((2, 2, 3), np.uint8)
    files = DicomWriter(tmp_path / "s").write(tmp_path, "c", result, ["seg", "sr", "ko", "sc"], picture)
    read = {file.stem: dcmread(file) for file in files}
    assert {name: ds.SeriesDescription for name, ds in read.items()} == {
        "c_seg": "malignant tumor of th... 0.75; attention SEG, research use only",
        "c_sr": "malignant tumor of th... 0.75; attention SR, research use only",
        "c_ko": "malignant tumor of th... 0.75; key slices, research use only",
        "c_sc": "malignant tumor of th... 0.75; picture, research use only",
    }
    assert max(len(ds.SeriesDescription) for ds in read.values()) <= 64
    for segment in read["c_seg"].SegmentSequence:
        assert "malignant tumor of the lung 0.75" in segment.SegmentDescription


def test_dicom_writer_copies_the_patient_as_the_source_has_it(tmp_path):
    patient = {
        "PatientName": "Müller^Jörg",
        "PatientID": "4711",
        "IssuerOfPatientID": "Hospital",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "EthnicGroup": "x",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "by hand",
    }
    volume, _ = answered(tmp_path / "s", SpecificCharacterSet="ISO_IR 100", **patient)
    picture = np.zeros((2, 2, 3), np.uint8)
    files = DicomWriter(tmp_path / "s").write(tmp_path, "c", ScanResult(volume), ["seg", "sr", "ko", "sc"], picture)
    for file in files:
        ds = dcmread(file)
        assert {tag: str(ds[tag].value) for tag in patient} == patient


def test_dicom_writer_names_the_model_and_the_class(tmp_path):
    result, hashed = result_of(tmp_path / "s"), "0123456789abcdef" * 4
    note = "tumor 2, weights 0123456789ab; mismatch: trained on modality MR, got modality CT"
    model = {"name": "tumor", "version": "2", "sha256": hashed}
    results = DicomWriter(tmp_path / "s", None, model, note, class_names=["benign", "malignant"])
    results.write(tmp_path, "c", result, ["seg", "sr"])
    seg = dcmread(tmp_path / "c_seg.dcm")
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("tumor", "2")
    stated = {"model": note, "weights SHA-256": hashed, "classes": "benign, malignant"}
    assert all(text in algorithm.AlgorithmParameters for text in stated.values())
    report = hd.sr.srread(tmp_path / "c_sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    for items in (groups[0][0].ContentSequence, of_scan(report, "Derived Imaging Measurements")[1].ContentSequence):
        named = [(item.name.meaning, getattr(item, "TextValue", "")) for item in items]
        assert ("Algorithm Name", "tumor") in named
        assert ("Algorithm Version", "2") in named
        texts = [text for name, text in named if name == "Algorithm Parameters"]
        assert texts == [f"{key}: {text}" for key, text in stated.items()]
    for ds in (seg, report):
        assert list(ds.SoftwareVersions) == [monai_mil_ext.__version__, "tumor 2"]
    assert seg.DeviceSerialNumber == hashed
    DicomWriter(tmp_path / "s").write(tmp_path, "other", result, ["sr"])
    assert dcmread(tmp_path / "other_sr.dcm").SOPInstanceUID != report.SOPInstanceUID


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
