"""Tests of the choice of one stack: what is left out is noted, and several stacks are listed."""

import re
import shutil

import numpy as np
import pytest
from pydicom import dcmread

from monai_mil_ext.data import find_series
from monai_mil_ext.transforms import LoadScan, LoadScand
from monai_mil_ext.utils import InputError
from tests.scans import edit_dicom, set_in_group, write_enhanced, write_series

CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def retag(folder, **values):
    for path in folder.rglob("*.dcm"):
        edit_dicom(path, lambda ds: [setattr(ds, tag, value) for tag, value in values.items()])


def write_parts(folder, *parts, **common):
    """Write series of one UID into one folder, each with its own values."""
    arrays = []
    for k, part in enumerate(parts):
        arrays.append(write_series(folder / f"part{k}", **{"shape": (6, 5, 4), **common, **part}))
    retag(folder, SeriesInstanceUID="1.2.826.0.1.7", SeriesNumber=7)
    return arrays


PHASES = {
    "temporal position 1; temporal position 2; temporal position 10": [
        {"TemporalPositionIdentifier": t} for t in (10, 1, 2)
    ],
    "echo time 15 ms; echo time 30.5 ms": [{"EchoNumbers": "", "EchoTime": t} for t in ("30.5", "15")],
    "echo 1; echo 2": [{"EchoNumbers": k, "EchoTime": 15 * k} for k in (1, 2)],
    "acquisition 1; acquisition 2": [{"AcquisitionNumber": k} for k in (1, 2)],
    "b value 0; b value 1000": [{"DiffusionBValue": b} for b in (0.0, 1000.0)],
    "b value 1000; no b value": [{}, {"DiffusionBValue": 1000.0}],
    "image type ORIGINAL/PRIMARY/M; image type ORIGINAL/PRIMARY/P": [
        {"ImageType": ["ORIGINAL", "PRIMARY", kind]} for kind in "MP"
    ],
    "temporal position 1, b value 0; temporal position 1, b value 5; temporal position 2, b value 0": [
        {"TemporalPositionIdentifier": t, "DiffusionBValue": b} for t, b in ((1, 0.0), (1, 5.0), (2, 0.0))
    ],
    "kernel no. 1; kernel no. 2": [{"ConvolutionKernel": kernel} for kernel in ("Secretname", "B30f")],
    "time no. 1; time no. 2": [{"AcquisitionTime": time} for time in ("101112", "091112")],
    "no. 1 by image number; no. 2 by image number": [{}, {}],
}


@pytest.mark.parametrize("names", PHASES)
def test_choose_stack_lists_phases_and_reads_the_chosen_one(tmp_path, names):
    parts = PHASES[names]
    write_parts(tmp_path / "s", *({"RescaleSlope": k + 1, **part} for k, part in enumerate(parts)))
    if names.startswith("no. 1"):
        for path in (tmp_path / "s" / "part1").iterdir():
            edit_dicom(path, lambda ds: setattr(ds, "InstanceNumber", ds.InstanceNumber + 4))
    with pytest.raises(InputError, match=f"one stack of slices, got {len(parts)} in a series: ") as error:
        LoadScan()(tmp_path / "s")
    rows = "; ".join(f"{k}: 4 slices ({name})" for k, name in enumerate(names.split("; "), 1))
    assert f"{rows}. Choose one by `stack`." in str(error.value)
    assert error.value.option == "--stack NUMBER"
    assert "Secretname" not in str(error.value)
    slopes = set()
    for number, name in enumerate(names.split("; "), 1):
        first, second = LoadScan(stack=name)(tmp_path / "s"), LoadScan()(tmp_path / "s", stack=number)
        np.testing.assert_array_equal(first[0], second[0])
        assert first.shape[1:] == (6, 5, 4)
        assert first.meta["notes"] == [f"One of {len(parts)} stacks was read: {name}."]
        slopes |= {round(float(first[0, 0, 0, 3] - first[0, 0, 0, 0]) / 900, 3)}
    assert slopes == set(range(1, len(parts) + 1))


def test_choose_stack_by_an_item(tmp_path):
    write_parts(tmp_path / "s", *({"EchoNumbers": k, "RescaleSlope": k} for k in (1, 2)))
    item = LoadScand("image")({"image": tmp_path / "s", "stack": "2"})
    assert float(item["image"][0, 0, 0, 3] - item["image"][0, 0, 0, 0]) == 1800


@pytest.mark.parametrize("stack", ["0", 3, "echo 9", "1.5"])
def test_choose_stack_refuses_an_unknown_one(tmp_path, stack):
    write_parts(tmp_path / "s", {"EchoNumbers": 1}, {"EchoNumbers": 2})
    rows = r"got none of 2 in a series: 1: 4 slices \(echo 1\); 2: 4 slices \(echo 2\)\."
    with pytest.raises(InputError, match=f"`stack` must be number or name of a stack, {rows}"):
        LoadScan(stack=stack)(tmp_path / "s")


def test_choose_stack_of_a_series_with_one(tmp_path):
    expected = write_series(tmp_path / "s")
    np.testing.assert_array_equal(LoadScan(stack=1)(tmp_path / "s")[0], expected)
    with pytest.raises(InputError, match=r"got none of 1 in a series: 1: 4 slices\."):
        LoadScan(stack=2)(tmp_path / "s")


def test_choose_stack_by_orientation(tmp_path):
    """A localizer of three planes is read where it is all there is."""
    types = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    arrays = write_parts(tmp_path / "s", {}, {"orientation": CORONAL}, {"orientation": SAGITTAL}, **types)
    rows = "1: 4 slices (axial); 2: 4 slices (coronal); 3: 4 slices (sagittal)."
    with pytest.raises(InputError, match=re.escape(rows)):
        LoadScan()(tmp_path / "s")
    image = LoadScan(stack="sagittal")(tmp_path / "s")
    np.testing.assert_array_equal(image[0], arrays[2])
    assert {tuple(item.orientation) for item in find_series(tmp_path / "s", stack=2)} == {CORONAL}


def test_choose_stack_separates_two_stacks_of_one_orientation(tmp_path):
    """Disc levels of a spine: stacks that are tilted differently, each of which is axial."""
    c, s = np.cos(0.3), np.sin(0.3)
    write_parts(tmp_path / "s", {}, {"orientation": (1, 0, 0, 0, c, s)}, {"orientation": (1, 0, 0, 0, c, -s)})
    rows = "1: 4 slices (axial); 2: 4 slices (oblique axial); 3: 4 slices (oblique axial no. 2)."
    with pytest.raises(InputError, match=re.escape(rows)):
        LoadScan()(tmp_path / "s")
    assert len(find_series(tmp_path / "s", stack="oblique axial no. 2")) == 4


def test_choose_stack_of_a_heart_beat(tmp_path):
    """Trigger times differ slightly from slice to slice, and tell the phases apart by their order."""
    write_parts(tmp_path / "s", *({"RescaleSlope": k + 1} for k in range(3)))
    rng = np.random.default_rng(0)
    for phase in range(3):
        for path in (tmp_path / "s" / f"part{phase}").iterdir():
            time = format(phase * 40 + rng.uniform(0, 5), ".2f")
            edit_dicom(path, lambda ds, time=time: setattr(ds, "TriggerTime", time))
    with pytest.raises(InputError, match=re.escape("3: 4 slices (no. 3 by trigger time)")):
        LoadScan()(tmp_path / "s")
    image = LoadScan(stack=2)(tmp_path / "s")
    assert float(image[0, 0, 0, 3] - image[0, 0, 0, 0]) == 1800


FRAMES = {
    "stack ID": ("FrameContent", "StackID", ("1", "2"), "stack ID 1; stack ID 2"),
    "stack of a name": ("FrameContent", "StackID", ("Secretname", "A"), "stack ID no. 1; stack ID no. 2"),
    "time": ("FrameContent", "TemporalPositionIndex", (1, 2), "temporal position 1; temporal position 2"),
    "echo": ("MREcho", "EffectiveEchoTime", (10.0, 20.0), "echo time 10 ms; echo time 20 ms"),
    "diffusion": ("MRDiffusion", "DiffusionBValue", (0.0, 800.0), "b value 0; b value 800"),
    "heart": (
        "CardiacSynchronization",
        "NominalCardiacTriggerDelayTime",
        (5.0, 45.0),
        "trigger delay 5 ms; trigger delay 45 ms",
    ),
    "component": (
        "MRImageFrameType",
        "ComplexImageComponent",
        ("MAGNITUDE", "PHASE"),
        "component MAGNITUDE; component PHASE",
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("order", ["one after the other", "interleaved"])
def test_choose_stack_of_an_enhanced_object(tmp_path, kind, order):
    sequence, tag, values, names = FRAMES[kind]
    heights = [0, 5, 10, 0, 5, 10] if order == "one after the other" else [0, 0, 5, 5, 10, 10]
    phase = [0, 0, 0, 1, 1, 1] if order == "one after the other" else [0, 1, 0, 1, 0, 1]
    stored = write_enhanced(tmp_path / "e.dcm", heights)

    def edit(ds):
        for k, group in zip(phase, ds.PerFrameFunctionalGroupsSequence, strict=True):
            set_in_group(group, sequence, **{tag: values[k]})

    edit_dicom(tmp_path / "e.dcm", edit)
    rows = "; ".join(f"{k}: 3 slices ({name})" for k, name in enumerate(names.split("; "), 1))
    with pytest.raises(InputError, match=re.escape(f"got 2 in a series: {rows}. Choose one by `stack`.")):
        LoadScan()(tmp_path / "e.dcm")
    ranks = (1, 0) if kind == "stack of a name" else (0, 1)  # "A" is before the other
    for number in (1, 2):
        expected = stored[..., np.array(phase) == ranks[number - 1]]
        np.testing.assert_array_equal(LoadScan(stack=number)(tmp_path / "e.dcm")[0], expected)


def test_choose_stack_lists_twelve_stacks_at_most(tmp_path):
    write_enhanced(tmp_path / "e.dcm", [0, 5] * 15)
    with pytest.raises(
        InputError, match=r"got 15 in a series: .*12: 2 slices \(no. 12 by image number\); and 3 more\."
    ):
        LoadScan()(tmp_path / "e.dcm")


@pytest.mark.parametrize("value", ["LOCALIZER", "SCOUT", "localizer "])
@pytest.mark.parametrize("number", [1, 3])
def test_drop_scouts_among_other_slices(tmp_path, value, number):
    write_parts(tmp_path / "s", {}, {"shape": (8, 9, number), "orientation": CORONAL, "ImageType": ["DERIVED", value]})
    image = LoadScan()(tmp_path / "s")
    assert image.shape[1:] == (6, 5, 4)
    assert image.meta["notes"] == [["1 scout was left out."], ["3 scouts were left out."]][number // 2]


def test_drop_scouts_of_another_series(tmp_path):
    write_series(tmp_path / "s", series=1, shape=(8, 9, 2), orientation=CORONAL, ImageType=["ORIGINAL", "LOCALIZER"])
    expected = write_series(tmp_path / "s", series=2)
    image = LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(image[0], expected)
    assert image.meta["notes"] == ["2 scouts were left out."]
    assert LoadScan("1")(tmp_path / "s").shape[1:] == (8, 9, 2)  # unless it is asked for
    write_series(tmp_path / "s", series=3)
    with pytest.raises(InputError, match="must be a folder with one series, got 3"):
        LoadScan()(tmp_path / "s")


@pytest.mark.parametrize("other", [{"orientation": SAGITTAL}, {"shape": (9, 9, 1), "first": 60}])
def test_drop_lone_slices(tmp_path, other):
    first = other.pop("first", 0)
    write_parts(tmp_path / "s", {}, {"shape": (6, 5, 1), "heights": np.array([first]), **other})
    image = LoadScan()(tmp_path / "s")
    assert image.shape[1:] == (6, 5, 4)
    assert image.meta["notes"] == ["1 slice of another orientation or size was left out."]


def test_drop_lone_slices_keeps_what_is_missing_in_the_stack(tmp_path):
    """A slice of another size between the others was changed, and is no scout."""
    write_parts(
        tmp_path / "s",
        {"shape": (6, 5, 3), "heights": np.array([0, 2.5, 7.5])},
        {"shape": (6, 9, 1), "heights": np.array([5.0])},
    )
    with pytest.raises(InputError, match="slices of the same size, got a series that mixes them"):
        LoadScan()(tmp_path / "s")


def test_drop_lone_slices_says_so_if_a_gap_is_left(tmp_path):
    write_series(tmp_path / "s")
    middle = find_series(tmp_path / "s")[2].path
    edit_dicom(middle, lambda ds: setattr(ds, "ImageOrientationPatient", [0.8, 0.6, 0, -0.6, 0.8, 0]))
    message = r"\(1 slice seems missing, 2\.5 mm\).* 1 slice of another orientation or size was left out\."
    with pytest.raises(InputError, match=message):
        LoadScan()(tmp_path / "s")


@pytest.mark.parametrize("number", [1, 4])
def test_drop_copies_of_the_same_object(tmp_path, number):
    expected = write_series(tmp_path / "s")
    for path in sorted((tmp_path / "s").iterdir())[:number]:
        shutil.copy(path, tmp_path / "s" / f"{path.stem} (copy).dcm")
    image = LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(image[0], expected)
    assert image.meta["notes"] == [
        "1 exact copy of a slice was left out." if number == 1 else "4 exact copies of slices were left out."
    ]


def test_drop_copies_of_an_enhanced_object(tmp_path):
    expected = write_enhanced(tmp_path / "e.dcm", [0, 5, 10])
    (tmp_path / "deeper").mkdir()
    shutil.copy(tmp_path / "e.dcm", tmp_path / "deeper" / "again.dcm")
    image = LoadScan()(tmp_path)
    np.testing.assert_array_equal(image[0], expected)
    assert image.meta["notes"] == ["3 exact copies of slices were left out."]


@pytest.mark.parametrize(
    "edit",
    [
        lambda ds: setattr(ds, "PixelData", bytes(60)),
        lambda ds: setattr(ds, "RescaleIntercept", 0),
        lambda ds: setattr(ds, "ImagePositionPatient", [0, 0, 0]),
    ],
    ids=["pixels", "intercept", "position"],
)
def test_drop_copies_refuses_objects_that_differ_under_one_identity(tmp_path, edit):
    write_series(tmp_path / "s")
    path = find_series(tmp_path / "s")[1].path
    shutil.copy(path, tmp_path / "s" / "copy.dcm")
    edit_dicom(tmp_path / "s" / "copy.dcm", edit)
    with pytest.raises(InputError, match="one image for each SOPInstanceUID, got two that differ under one UID"):
        LoadScan()(tmp_path / "s")


def test_drop_copies_keeps_a_second_object_at_one_position(tmp_path):
    write_series(tmp_path / "s")
    path = find_series(tmp_path / "s")[1].path
    ds = dcmread(path)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.save_as(tmp_path / "s" / "second.dcm")
    with pytest.raises(InputError, match=r"one slice per position, got two at 32\.5 mm"):
        LoadScan()(tmp_path / "s")
