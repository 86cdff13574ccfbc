"""Tests of ScanReader: one scan, or a clear error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom.pixels
import pytest
from monai.data import ITKReader
from pydicom import dcmread

from monai_mil_ext.data import ScanReader, find_series
from tests.scans import voxels, write_enhanced, write_nifti, write_nrrd, write_series, write_structure_set

C, S = np.cos(0.3), np.sin(0.3)
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "prone": (-1, 0, 0, 0, -1, 0),
    "oblique": (C, S, 0, -S, C, 0),
    "oblique_in_z": (1, 0, 0, 0, C, S),
}


def read(path):
    reader = ScanReader()
    return reader.get_data(reader.read(path))


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_scan_reader_agrees_with_monai_on_a_series(tmp_path, orientation):
    expected = write_series(tmp_path / "s", orientation=orientation)
    array, meta = read(tmp_path / "s")
    monai_array, monai_meta = ITKReader().get_data(ITKReader().read(str(tmp_path / "s")))
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(array, monai_array)
    np.testing.assert_allclose(meta["affine"], monai_meta["affine"], atol=1e-6)  # ITK rounds directions


PLANES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "feet first": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, -0.48, 0.64, 0.6),
}


def points_of(ds, frame=None):
    """Yield values and their places in RAS mm, by the equation of the standard (C.7.6.2.1-1)."""
    shared = ds if frame is None else ds.SharedFunctionalGroupsSequence[0]
    own = ds if frame is None else ds.PerFrameFunctionalGroupsSequence[frame]
    position = np.array((own if frame is None else own.PlanePositionSequence[0]).ImagePositionPatient)
    orientation = np.array((shared if frame is None else shared.PlaneOrientationSequence[0]).ImageOrientationPatient)
    between_rows, between_columns = (shared if frame is None else shared.PixelMeasuresSequence[0]).PixelSpacing
    stored = np.atleast_3d(ds.pixel_array.T).T[frame or 0]
    rescale = ds if frame is None else own.PixelValueTransformationSequence[0]
    for (row, column), value in np.ndenumerate(stored):
        place = position + orientation[:3] * between_columns * column + orientation[3:] * between_rows * row
        yield value * rescale.RescaleSlope + rescale.RescaleIntercept, place * [-1, -1, 1]


HEIGHTS = [0, 7.5, 2.5, 5]
CONTAINERS = ("series", "sub-folders", "no preamble", "zip", "file", "file in folder", "parts")


def write_phantom(folder, container, orientation):
    """Write slices or frames, and return their headers."""
    folder.mkdir()
    if container not in ("file", "file in folder", "parts"):
        write_series(folder, orientation=orientation, heights=np.array(HEIGHTS))
    else:
        for k, part in enumerate([HEIGHTS[:1], HEIGHTS[1:]] if container == "parts" else [HEIGHTS]):
            write_enhanced(folder / f"{k}.dcm", part, list(range(1, len(part) + 1)), orientation=orientation)
    return [dcmread(path) for path in folder.iterdir()]


def packed(folder, container):
    """Return the path of the files of a folder, as another export writes them."""
    for path in list(folder.iterdir()):
        if container == "sub-folders":
            (folder / path.stem).mkdir()
            path.rename(folder / path.stem / "IM1")
        elif container == "no preamble":
            path.write_bytes(path.read_bytes()[132:])
    if container == "zip":
        return Path(shutil.make_archive(str(folder), "zip", folder))
    return folder / "0.dcm" if container == "file" else folder


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_scan_reader_has_each_value_where_the_headers_say(tmp_path, plane, container):
    files = write_phantom(tmp_path / "s", container, PLANES[plane])
    frames = [(ds, k) for ds in files for k in (range(ds.NumberOfFrames) if "NumberOfFrames" in ds else [None])]
    array, meta = read(packed(tmp_path / "s", container))
    to_voxels = np.linalg.inv(meta["affine"])
    seen = set()
    for value, place in (point for ds, k in frames for point in points_of(ds, k)):
        voxel = to_voxels[:3, :3] @ place + to_voxels[:3, 3]
        index = tuple(np.rint(voxel).astype(int).tolist())
        np.testing.assert_allclose(voxel, index, atol=1e-4)
        assert array[index] == value
        seen.add(index)
    assert len(seen) == array.size == 6 * 5 * 4


def test_scan_reader_affine_is_that_of_the_headers(tmp_path):
    write_series(tmp_path / "s", orientation=ORIENTATIONS["oblique_in_z"])
    row, column = np.reshape(ORIENTATIONS["oblique_in_z"], (2, 3))
    lps = np.stack([0.9 * row, 0.7 * column, 2.5 * np.cross(row, column)], axis=1)
    expected = np.diag([-1, -1, 1, 1]) @ np.block([[lps, np.array([[-10], [-20], [30]])], [np.zeros((1, 3)), 1]])
    np.testing.assert_allclose(read(tmp_path / "s")[1]["affine"], expected, atol=1e-5)


def test_scan_reader_rescales_slice_by_slice(tmp_path):
    expected = write_series(tmp_path / "s")
    first, second = (s.path for s in find_series(tmp_path / "s")[:2])
    for path, slope in ((first, 1), (second, 0.25)):
        ds = dcmread(path)
        ds.RescaleSlope = slope
        ds.save_as(path)
    array, _ = read(tmp_path / "s")
    stored = voxels((6, 5, 4))
    np.testing.assert_array_equal(array[..., 0], stored[..., 0] - 1024.0)
    np.testing.assert_array_equal(array[..., 1], stored[..., 1] * 0.25 - 1024)
    np.testing.assert_array_equal(array[..., 2:], expected[..., 2:])


def test_scan_reader_ignores_other_objects_and_files(tmp_path):
    expected = write_series(tmp_path / "s", suffix="")
    write_structure_set(tmp_path / "s")
    write_series(tmp_path / "s", (6, 5, 2), series=7, Modality="RTDOSE")
    write_series(tmp_path / "s", (6, 5, 1), series=8, NumberOfFrames=3)
    (tmp_path / "s" / "notes.txt").write_text("hello")
    (tmp_path / "s" / "deeper").mkdir()
    np.testing.assert_array_equal(read(tmp_path / "s")[0], expected)


def test_scan_reader_reads_the_chosen_series(tmp_path):
    write_series(tmp_path / "s", series=2)
    expected = write_series(tmp_path / "s", (6, 5, 3), series=5, Modality="MR")
    reader = ScanReader("5")
    array, meta = reader.get_data(reader.read(tmp_path / "s"))
    np.testing.assert_array_equal(array, expected)
    assert meta["modality"] == "MR"


@pytest.mark.parametrize(("thickness", "depth"), [(2.5, 2.5), (None, 1.0)])
def test_scan_reader_of_one_slice(tmp_path, thickness, depth):
    expected = write_series(tmp_path / "s", (6, 5, 1), SliceThickness=thickness)
    array, meta = read(tmp_path / "s")
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_allclose(meta["affine"], [[-0.9, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, depth, 30], [0, 0, 0, 1]])


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz", "s.nrrd"])
def test_scan_reader_keeps_array_and_affine_of_files(tmp_path, name):
    affine = np.array([[0.0, -2.0, 0.0, 5.0], [0.8, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0, 0, 0, 1]])
    path = (write_nrrd if name.endswith("nrrd") else write_nifti)(tmp_path / name, voxels((6, 5, 4)), affine)
    array, meta = read(path)
    np.testing.assert_array_equal(array, voxels((6, 5, 4)))
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-6)


def test_scan_reader_metadata_are_geometry_and_modality(tmp_path):
    write_series(tmp_path / "s")
    expected = {"affine", "original_affine", "original_channel_dim", "space", "spacing", "spatial_shape"}
    expected |= {"container", "notes"}
    meta = read(tmp_path / "s")[1]
    assert set(meta) == expected | {"modality", "instance_number"}
    assert (meta["modality"], meta["container"], meta["notes"]) == ("CT", "DICOM series", [])
    assert meta["instance_number"].tolist() == [1, 2, 3, 4]
    single = next((tmp_path / "s").iterdir())
    assert set(read(single)[1]) == expected | {"modality", "instance_number"}
    assert read(single)[1]["modality"] == "CT"
    assert set(read(write_nifti(tmp_path / "s.nii", voxels((6, 5, 4)), np.eye(4)))[1]) == expected
    assert "0010|0010" in ITKReader().get_data(itk.imread(str(single)))[1]


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz", "s.nrrd", "s"])
def test_scan_reader_refuses_truncated_files(tmp_path, name):
    if name == "s":
        write_series(tmp_path / "s")
        path = find_series(tmp_path / "s")[1].path
    else:
        path = (write_nrrd if "nrrd" in name else write_nifti)(tmp_path / name, voxels((30, 20, 10)), np.eye(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"readable, undamaged scan, got (a|1 DICOM) file|NIfTI file") as error:
        ScanReader().read(tmp_path / name)
    assert name not in str(error.value).split()
    assert str(tmp_path) not in str(error.value)
    path.write_bytes(whole)
    assert ScanReader().read(tmp_path / name) is not None


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz", "s.nrrd"])
def test_scan_reader_keeps_sheared_affines_and_nan(tmp_path, name):
    affine = np.array([[0.0, -2.0, 0.1, 5.0], [0.8, 0.0, 0.0, -7.0], [0.1, 0.0, 3.0, 11.0], [0, 0, 0, 1]])
    array = voxels((6, 5, 4)).astype(np.float32)
    array[1, 2, 3] = np.nan
    path = (write_nrrd if name.endswith("nrrd") else write_nifti)(tmp_path / name, array, affine)
    got, meta = read(path)
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-6)
    np.testing.assert_array_equal(got, array)


def test_scan_reader_rescales_nifti_and_drops_a_trailing_axis(tmp_path):
    image = nib.Nifti1Image(voxels((6, 5, 4))[..., None], np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "s.nii")
    stored = np.asarray(nib.load(tmp_path / "s.nii").dataobj.get_unscaled())[..., 0]
    array, meta = read(tmp_path / "s.nii")
    np.testing.assert_allclose(array, stored * 0.5 - 3)
    assert meta["spatial_shape"].tolist() == [6, 5, 4]
    assert read(write_nifti(tmp_path / "one.nii", voxels((6, 5, 1)), np.eye(4)))[0].shape == (6, 5, 1)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_scan_reader_has_mm_whatever_the_unit_of_the_file(tmp_path, unit, factor):
    image = nib.Nifti1Image(voxels((6, 5, 4)), np.diag([0.5, 2, 4, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "s.nii")
    array, meta = read(tmp_path / "s.nii")
    np.testing.assert_array_equal(array, voxels((6, 5, 4)))
    np.testing.assert_allclose(np.diag(meta["affine"])[:3], np.array([0.5, 2, 4]) * factor)
    np.testing.assert_allclose(meta["spacing"], np.array([0.5, 2, 4]) * factor)
    assert meta["notes"] == ([f"Lengths in {unit}s were converted to mm."] if factor != 1 else [])


@pytest.mark.parametrize("name", ["s.hdr", "s.img"])
def test_scan_reader_reads_a_pair_of_files_as_one(tmp_path, name):
    array = voxels((6, 5, 4)).astype(np.float32)
    array[1, 2, 3] = np.nan
    affine = np.array([[0.0, -2.0, 0.1, 5.0], [0.8, 0.0, 0.0, -7.0], [0.1, 0.0, 3.0, 11.0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Pair(array, affine), tmp_path / "s.hdr")
    got, meta = read(tmp_path / name)
    np.testing.assert_array_equal(got, array)
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-6)
    assert (meta["container"], meta["notes"]) == ("NIfTI", [])


NO_SIDES = "The file states no orientation: sides, such as R and L, may be wrong."
NO_SIZE = "The file states no size of its voxels: 1 mm was taken."
SPACES = {
    "space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)": [],
    "space: RAS\nspace directions: (1,0,0) (0,2,0) (0,0,3)": [],
    "space: scanner-xyz\nspace directions: (1,0,0) (0,2,0) (0,0,3)": [NO_SIDES],
    "spacings: 1 2 3": [NO_SIDES],
    "content: x": [NO_SIZE, NO_SIDES],
}


@pytest.mark.parametrize("lines", SPACES)
def test_scan_reader_notes_what_an_nrrd_does_not_state(tmp_path, lines):
    header = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\n{lines}\nencoding: raw\n\n"
    (tmp_path / "s.nrrd").write_bytes(header.encode() + bytes(120))
    assert read(tmp_path / "s.nrrd")[1]["notes"] == SPACES[lines]


def test_scan_reader_refuses_an_nrrd_with_a_spacing_that_is_no_number(tmp_path):
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nspacings: 1 NaN 3\nencoding: raw\n\n"
    (tmp_path / "s.nrrd").write_bytes(header.encode() + bytes(120))
    with pytest.raises(ValueError, match="voxels of a positive, finite size, got NaN"):
        ScanReader().read(tmp_path / "s.nrrd")


@pytest.mark.parametrize(("line", "notes"), [("ElementSpacing = 1 2 3\n", []), ("", [NO_SIZE])])
def test_scan_reader_notes_a_meta_image_without_a_spacing(tmp_path, line, notes):
    header = f"ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\n{line}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "s.mha").write_bytes(header.encode() + bytes(120))
    assert read(tmp_path / "s.mha")[1]["notes"] == notes


def test_scan_reader_prints_no_path(tmp_path, capfd):
    """ITK names the file in its warnings, as of an Analyze file."""
    image = nib.AnalyzeImage(voxels((6, 5, 4)).astype(np.float32), np.diag([1, 2, 3, 1]))
    nib.save(image, tmp_path / "Secretname.hdr")
    meta = read(tmp_path / "Secretname.hdr")[1]
    assert (meta["container"], meta["notes"]) == ("Analyze", [NO_SIDES])
    shutil.copy(tmp_path / "Secretname.hdr", tmp_path / "Secretname.mha")
    with pytest.raises(ValueError, match="ITK can't read"):
        ScanReader().read(tmp_path / "Secretname.mha")
    assert "Secretname" not in "".join(capfd.readouterr())


def test_scan_reader_refuses_what_is_no_volume(tmp_path):
    for shape, got in (((6, 5), "6 x 5"), ((6, 5, 4, 2), "6 x 5 x 4 x 2")):
        path = write_nifti(tmp_path / "s.nii", np.zeros(shape, np.float32), np.eye(4))
        with pytest.raises(ValueError, match=rf"one 3D scalar volume, got {got} voxels of 1 components\."):
            ScanReader().read(path)
    path = write_nifti(tmp_path / "c.nii", np.zeros((6, 5, 4), np.complex64), np.eye(4))
    with pytest.raises(ValueError, match=r"got 6 x 5 x 4 voxels of 2 components\."):
        ScanReader().read(path)
    itk.imwrite(itk.image_from_array(np.zeros((4, 5, 6, 3), np.uint8), is_vector=True), str(tmp_path / "v.nrrd"))
    with pytest.raises(ValueError, match="got 6 x 5 x 4 voxels of 3 components"):
        ScanReader().read(tmp_path / "v.nrrd")
    with pytest.raises(ValueError, match="the path of one scan, got 2 paths"):
        ScanReader().read([tmp_path / "s.nii", tmp_path / "s.nii"])
    with pytest.raises(FileNotFoundError, match=r"a scan that exists, got the path of no file or folder"):
        ScanReader().read(tmp_path / "none.nii")
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(ValueError, match=r"undamaged scan, got a file that ITK can't read\."):
        ScanReader().read(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file that"),
        (b"\x1f\x8b" + bytes(40), "a gzip archive, which must be unpacked first, that"),
    ],
)
def test_scan_reader_names_the_kind_of_file_and_not_the_file(tmp_path, content, kind):
    for name in ("Secretname", "Secretname.zip"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"got {kind} ITK can't read") as error:
            ScanReader().read(tmp_path / name)
        assert "Secretname" not in str(error.value)


@pytest.mark.parametrize("error", [UnboundLocalError("os"), KeyError("x"), MemoryError(), AttributeError("x")])
@pytest.mark.parametrize("name", ["s", "s.nrrd", "s.nii"])
def test_scan_reader_turns_whatever_a_library_raises_into_an_error_of_the_file(tmp_path, monkeypatch, error, name):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(itk, "imread", fail)
    monkeypatch.setattr(nib, "load", fail)
    monkeypatch.setattr(pydicom.pixels, "iter_pixels", fail)
    if name == "s":
        write_series(tmp_path / "s")
    else:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="must be a readable, undamaged scan, got"):
        ScanReader().read(tmp_path / name)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1, 1, 0, 1]), np.diag([1, np.nan, 1, 1])])
def test_scan_reader_refuses_voxels_without_a_size(tmp_path, affine):
    image = nib.Nifti1Image(voxels((6, 5, 4)), None)
    image.header.set_sform(affine, code=1)
    nib.save(image, tmp_path / "s.nii")
    with pytest.raises(ValueError, match=r"voxels of a positive, finite size, got the affine|nibabel can't read"):
        read(tmp_path / "s.nii")


def test_scan_reader_reads_a_slice_given_as_a_file_like_one_in_a_folder(tmp_path):
    expected = write_series(tmp_path / "s", (6, 5, 1))
    (file,) = (tmp_path / "s").iterdir()
    array, meta = read(file)
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_allclose(meta["affine"], read(tmp_path / "s")[1]["affine"])
    ds = dcmread(file)
    ds.Rows = 10
    ds.save_as(file)
    with pytest.raises(ValueError, match="got 1 DICOM file with 60 bytes of pixels where 10 x 6 of 16 bits have 120"):
        read(file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="undamaged scan, got a DICOM file with an incomplete header"):
        read(file)


@pytest.mark.slow(buys="ITK leaves the scripts of a bundle importable")
def test_scan_reader_keeps_bundle_scripts_importable(tmp_path):
    """ITK changes the working directory while it loads, and MONAI adds the bundle as a relative folder."""
    write_nrrd(tmp_path / "scan.nrrd", np.zeros((4, 4, 3), np.float32), np.eye(4))
    (tmp_path / "beside.py").write_text("found = True")
    steps = ["import sys", "from monai_mil_ext.data import ScanReader", "sys.path[0] = '.'"]
    code = "; ".join([*steps, "ScanReader().read('scan.nrrd')", "import beside"])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.dcm"])
def test_scan_reader_does_not_wait_for_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="must be a scan that exists, got the path of no file or folder"):
        ScanReader().read(tmp_path / name)
