"""Tests of DICOM annotations of a series: contours and segments become voxels, or an error names them."""

import numpy as np
import pytest
from pydicom import dcmread

from monai_mil_ext.data import find_annotation, find_series, read_annotation_mask
from tests.dicom_annotations import FRAME, square, write_contours, write_segments
from tests.scans import write_enhanced, write_nifti, write_series

SHAPE = (11, 9, 4)
OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)


@pytest.fixture(params=[(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), OBLIQUE], ids=["axial", "upside down", "oblique"])
def folder(request, tmp_path):
    write_series(tmp_path / "s", SHAPE, orientation=request.param, FrameOfReferenceUID=FRAME)
    return tmp_path / "s"


@pytest.fixture
def scan(tmp_path):
    write_series(tmp_path / "s", SHAPE, FrameOfReferenceUID=FRAME)
    return tmp_path / "s"


def test_read_annotation_mask_fills_contours_with_holes(folder, tmp_path):
    rings = [square(folder, 2, (3, 5), 2.5), square(folder, 2, (3, 5), 0.5)]
    spot = [square(folder, 0, (8.4, 1.4), 0.05)]  # holds no center of a voxel, and still labels its slice
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": rings, "node": spot, "heart": [square(folder, 1, (5, 5), 3)]})
    expected = np.zeros(SHAPE, dtype=np.float32)
    expected[1:6, 3:8, 2] = 1
    expected[3, 5, 2] = 0
    np.testing.assert_array_equal(read_annotation_mask(file, folder, ["GTV-1"])[0], expected)
    expected[8, 1, 0] = 1
    mask = read_annotation_mask(file, folder, ["GTV-1", "node"])
    np.testing.assert_array_equal(mask[0], expected)
    np.testing.assert_allclose(mask.affine[:3, 3] * np.array([-1, -1, 1]), find_series(folder)[0].position)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_read_annotation_mask_reads_segments(folder, tmp_path, kind):
    masks = {name: np.zeros(SHAPE, dtype=np.uint8) for name in ("lesion", "vessel")}
    masks["lesion"][2:5, 1:3, 1:3] = 1
    masks["vessel"][6, 7, 3] = 1
    fractions = {name: mask * 0.7 for name, mask in masks.items()} if kind == "FRACTIONAL" else masks
    file = write_segments(tmp_path / "seg.dcm", folder, fractions, kind)
    for names in (["lesion"], ["vessel"], ["lesion", "vessel"]):
        expected = np.maximum.reduce([masks[name] for name in names])
        np.testing.assert_array_equal(read_annotation_mask(file, folder, names)[0], expected)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("slices", [(1, 4, 9), (3,), (1, 3, 5)], ids=str)
@pytest.mark.parametrize("place", ["shared", "per frame"])
def test_read_annotation_mask_reads_omitted_frames_without_their_spacing(tmp_path, kind, slices, place):
    write_series(tmp_path / "s", (11, 9, 10), FrameOfReferenceUID=FRAME)
    mask = np.zeros((11, 9, 10), dtype=np.uint8)
    for k in slices:
        mask[k, 2, k] = 1
    file = write_segments(
        tmp_path / "seg.dcm", tmp_path / "s", {"a": mask * 0.7 if kind == "FRACTIONAL" else mask}, kind
    )
    segmentation = dcmread(file)
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    measures = shared.PixelMeasuresSequence[0]
    measures.pop("SpacingBetweenSlices", None)
    del measures.SliceThickness
    if place == "per frame":
        for frame in segmentation.PerFrameFunctionalGroupsSequence:
            frame.PixelMeasuresSequence = [measures]
        del shared.PixelMeasuresSequence
    segmentation.save_as(file)
    np.testing.assert_array_equal(read_annotation_mask(file, tmp_path / "s")[0], mask)


def test_read_annotation_mask_of_an_enhanced_object(tmp_path):
    write_enhanced(tmp_path / "e.dcm", [5, 0, 10], shape=(11, 9), FrameOfReferenceUID=FRAME)
    contour = square(tmp_path / "e.dcm", 2, (3, 5), 1.5)
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [contour]}, series="1.2.826.0.1.55")
    expected = np.zeros((11, 9, 3), dtype=np.float32)
    expected[2:5, 4:7, 2] = 1
    np.testing.assert_array_equal(read_annotation_mask(file, tmp_path / "e.dcm")[0], expected)


def test_read_annotation_mask_of_a_stack(tmp_path):
    for echo in (1, 2):
        write_series(tmp_path / "s" / str(echo), SHAPE, EchoNumbers=echo, FrameOfReferenceUID=FRAME)
    contour = square(tmp_path / "s" / "1", 2, (3, 5), 1.5)
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [contour]})
    with pytest.raises(ValueError, match=r"must be one stack of slices, got 2 in a series: 1: 4 slices \(echo 1\)"):
        read_annotation_mask(file, tmp_path / "s")
    mask = read_annotation_mask(file, tmp_path / "s", stack="echo 2")
    assert mask.shape[1:] == SHAPE
    assert mask.sum() == 9


def test_read_annotation_mask_refuses_segments_on_irregular_frames(scan, tmp_path):
    file = write_segments(tmp_path / "seg.dcm", scan, {"a": np.ones(SHAPE, dtype=np.uint8)})
    segmentation = dcmread(file)
    segmentation.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0].ImagePositionPatient[2] += 1
    segmentation.save_as(file)
    with pytest.raises(ValueError, match="a SEG on slices of the series, got one with a fault: Frame positions do not"):
        read_annotation_mask(file, scan)
    del segmentation.PerFrameFunctionalGroupsSequence
    segmentation.save_as(file)
    with pytest.raises(ValueError, match="a SEG on slices of the series, got one without functional groups"):
        read_annotation_mask(file, scan)


def test_read_annotation_mask_thresholds_fractions_at_one_half(scan, tmp_path):
    half = np.zeros(SHAPE)
    half[1, 1, 1], half[2, 2, 2] = 0.4, 0.6
    mask = read_annotation_mask(write_segments(tmp_path / "seg.dcm", scan, {"a": half}, "FRACTIONAL"), scan)
    assert mask[0].nonzero().tolist() == [[2, 2, 2]]


def test_read_annotation_mask_lists_the_available_names(scan, tmp_path):
    regions = {name: [square(scan, 1, (5, 5), 2)] for name in ("GTV-1", "heart")}
    file = write_contours(tmp_path / "rt.dcm", regions)
    with pytest.raises(
        ValueError, match=r"among the annotated ones, 'GTV-1', 'heart', got 'GTV1'; did you mean 'GTV-1'\?"
    ):
        read_annotation_mask(file, scan, ["GTV1"])
    with pytest.raises(ValueError, match="must be given unless exactly one region is annotated, got 'GTV-1', 'heart'"):
        read_annotation_mask(file, scan)


@pytest.mark.parametrize("k", [-1, 1.5, 4], ids=["below", "between", "above"])
def test_read_annotation_mask_refuses_a_contour_without_a_slice(scan, tmp_path, k):
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [square(scan, k, (5, 5), 2)]})
    with pytest.raises(ValueError, match=r"a contour of 'GTV-1' around .* mm \(LPS\), where there is no slice"):
        read_annotation_mask(file, scan)


def test_read_annotation_mask_refuses_a_contour_outside_the_pixels(scan, tmp_path):
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [square(scan, 1, (30, 5), 2)]})
    with pytest.raises(ValueError, match="got 'GTV-1' outside on slice 1"):
        read_annotation_mask(file, scan)


def test_read_annotation_mask_refuses_points(scan, tmp_path):
    file = write_contours(tmp_path / "rt.dcm", {"mark": [square(scan, 1, (5, 5), 2)]}, kind="POINT")
    with pytest.raises(ValueError, match="closed planar contours, got 'mark' without one"):
        read_annotation_mask(file, scan)


def test_read_annotation_mask_refuses_a_region_without_contours(scan, tmp_path):
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [square(scan, 1, (5, 5), 2)], "node": []})
    plan = dcmread(file)
    del plan.ROIContourSequence[1]  # listed, but never drawn
    plan.save_as(file)
    with pytest.raises(ValueError, match="closed planar contours, got 'node' without one"):
        read_annotation_mask(file, scan, ["node"])


def test_read_annotation_mask_refuses_annotations_of_another_scan(scan, tmp_path):
    regions = {"GTV-1": [square(scan, 1, (5, 5), 2)]}
    with pytest.raises(ValueError, match="must have the frame of reference of the series, got one drawn in another"):
        read_annotation_mask(write_contours(tmp_path / "a.dcm", regions, frame="1.2.3"), scan)
    with pytest.raises(ValueError, match="must refer to the series of the scan, got one that refers to 1 other"):
        read_annotation_mask(write_contours(tmp_path / "b.dcm", regions, series="1.2.826.0.1.2"), scan)
    write_series(tmp_path / "other", SHAPE, FrameOfReferenceUID="1.2.3", series=2)
    segments = write_segments(tmp_path / "seg.dcm", tmp_path / "other", {"a": np.ones(SHAPE, dtype=np.uint8)})
    with pytest.raises(ValueError, match="must have the frame of reference of the series"):
        read_annotation_mask(segments, scan)


def test_read_annotation_mask_refuses_regions_that_alone_state_another_frame_of_reference(scan, tmp_path):
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [square(scan, 1, (5, 5), 2)]}, frame="1.2.3")
    plan = dcmread(file)
    del plan.ReferencedFrameOfReferenceSequence
    plan.save_as(file)
    with pytest.raises(ValueError, match="must have the frame of reference of the series, got one drawn in another"):
        read_annotation_mask(file, scan)


def test_read_annotation_mask_refuses_segments_on_another_grid(scan, tmp_path):
    for name, shape, heights in (("low", SHAPE, np.arange(4) * 2.5 - 2.5), ("small", (8, 9, 4), None)):
        write_series(tmp_path / name, shape, heights=heights, FrameOfReferenceUID=FRAME)
        write_segments(tmp_path / f"{name}.dcm", tmp_path / name, {"a": np.ones(shape, dtype=np.uint8)})
    with pytest.raises(ValueError, match=r"got a frame at \(-10.0, -20.0, 27.5\) mm \(LPS\), where there is no slice"):
        read_annotation_mask(tmp_path / "low.dcm", scan)
    with pytest.raises(ValueError, match="a SEG with the pixels of the series, got frames of another grid"):
        read_annotation_mask(tmp_path / "small.dcm", scan)


def test_find_annotation_in_a_folder(scan, tmp_path):
    assert find_annotation(scan) is None
    regions = {"GTV-1": [square(scan, 1, (5, 5), 2)]}
    file = write_contours(scan / "rt.dcm", regions)
    assert find_annotation(scan) == find_annotation(file) == file
    write_contours(scan / "rt2.dcm", regions)
    with pytest.raises(ValueError, match="a file if the folder has several RTSTRUCT or SEG, got RTSTRUCT, RTSTRUCT"):
        find_annotation(scan)


def test_read_annotation_mask_needs_a_folder(scan, tmp_path):
    volume = write_nifti(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.float32), np.eye(4))
    file = write_contours(tmp_path / "rt.dcm", {"GTV-1": [square(scan, 1, (5, 5), 2)]})
    with pytest.raises(
        ValueError, match=r"the DICOM folder of the annotated series, or its enhanced file, got another"
    ):
        read_annotation_mask(file, volume)
    assert find_annotation(volume) is None
