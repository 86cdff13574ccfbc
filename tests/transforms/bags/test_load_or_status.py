"""Tests of LoadOrStatus and PostprocessOrStatus: a bag or the reason of a failure, without a path."""

import logging

import pydicom
import pytest
import torch
from monai.data import decollate_batch
from monai.transforms import Compose
from pydicom import dcmread

from monai_mil_ext.data import BagCollate, write_bag
from monai_mil_ext.transforms import (
    LoadBagd,
    LoadBagLabeld,
    LoadOrStatus,
    LoadPatientBagd,
    LoadScand,
    PostprocessOrStatus,
)
from monai_mil_ext.utils import InputError
from tests.scans import write_series

LOAD = Compose([LoadBagd(["image", "position"]), LoadBagLabeld("label", num_classes=2)])
SHAPES = {"image": [3], "position": []}


def item(path, **more):
    return {"image": str(path), "case_id": "a1", "patient": "a", "label": 1} | more


@pytest.fixture
def file(tmp_path):
    write_bag(tmp_path / "b.h5", {"features": torch.arange(12.0).view(4, 3), "position": torch.arange(4.0)})
    return tmp_path / "b.h5"


def test_load_or_status_returns_the_bag_of_the_transform(file):
    out, expected = LoadOrStatus(LOAD, SHAPES)(item(file)), LOAD(item(file))
    assert out.pop("status") == "done"
    assert out.keys() == expected.keys()
    assert torch.equal(out["image"], expected["image"])


@pytest.mark.parametrize(
    ("features", "note"),
    [
        (torch.zeros(4, 3), "all features are 0, as if their encoding failed"),
        (torch.full((1, 3), 2.5), "all features are 2.5, as if their encoding failed"),
        (torch.tensor([[1.0, 2.0, 3.0]]).repeat(4, 1), "all 4 instances have the same features"),
        (torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]), None),  # the first and the last are the same
        (torch.tensor([[1.0, 2.0, 3.0]]), None),
    ],
)
def test_load_or_status_notes_and_logs_features_that_say_nothing(features, note, tmp_path, caplog):
    load = LoadOrStatus(lambda item: {**item, "image": features, "notes": "of a file"}, {"image": [3]})
    out = load({"image": "b.h5", "case_id": "a1"})
    assert out["status"] == "done"
    assert out["notes"] == ("of a file" if note is None else f"of a file; {note}")
    assert caplog.messages == ([] if note is None else [f"a1: {note}"])


def test_load_or_status_of_an_empty_bag_is_blank(tmp_path):
    write_bag(tmp_path / "b.h5", {"features": torch.ones(0, 3), "position": torch.ones(0)})
    out = LoadOrStatus(LOAD, SHAPES)(item(tmp_path / "b.h5"))
    assert out.keys() == {"image", "position", "case_id", "patient", "status", "option", "notes"}
    assert (out["status"], out["option"]) == ("empty", "")
    assert out["notes"] == "`image` must hold an instance, got none of the file."
    assert torch.equal(out["image"], torch.zeros(1, 3))
    assert torch.equal(out["position"], torch.zeros(1))


def test_load_or_status_has_the_reason_and_no_path(file):
    load = LoadOrStatus(LOAD, SHAPES)
    assert load(item(file.parent / "absent.h5"))["status"].startswith(
        "unreadable: `path` must be a bag file that exists"
    )
    file.write_bytes(file.read_bytes()[:200])
    status = load(item(file))["status"]
    assert status.startswith("unreadable: ")
    assert "b.h5" not in status
    assert str(file.parent) not in status

    def open_it(data):
        with open(data["image"], "rb"):
            pass

    gone = LoadOrStatus(open_it, SHAPES)(item(file.parent / "absent.h5"))
    assert gone["status"] == "unreadable: No such file or directory"


@pytest.mark.parametrize("kind", ["cut slice", "no pixels", "no folder", "bag", "bag of a patient"])
@pytest.mark.parametrize("case_id", ["a1", "SECRETDOE_JOHN"])
def test_load_or_status_has_no_name_of_a_patient_in_a_status_or_log(tmp_path, caplog, kind, case_id):
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "WARD_SECRET" / "SECRETDOE_JOHN"
    write_series(folder, suffix="_SECRET.dcm")
    for path in sorted(folder.iterdir())[:1] if kind == "cut slice" else folder.iterdir():
        if kind == "no pixels":
            ds = dcmread(path)
            del ds.PixelData
            ds.save_as(path)
        else:
            path.write_bytes(path.read_bytes()[:-3])
    load, source = LoadScand("image"), str(folder)
    if kind == "no folder":
        source = str(folder.with_name("SECRETDOE_JIM"))
    elif kind.startswith("bag"):
        source = str(folder / "SECRETDOE_JOHN.h5")
        (folder / "SECRETDOE_JOHN.h5").write_bytes(b"1234567890")
        load = LoadBagd("image")
        if kind == "bag of a patient":
            source, load = [source], LoadPatientBagd("image")
    out = LoadOrStatus(load, SHAPES)({"image": source, "case_id": case_id})
    assert out["status"].startswith("unreadable: `")
    for text in (out["status"], caplog.text):
        assert "SECRET" not in text
        assert str(tmp_path) not in text
    assert out["case_id"] == case_id


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_load_or_status_takes_the_errors_of_damaged_files(file, error):
    def broken(data):
        raise error(f"cannot read {data['image']}")

    status = LoadOrStatus(Compose([broken]), SHAPES)(item(file))["status"]
    assert status == "unreadable: cannot read the file"


def test_load_or_status_raises_errors_that_no_file_causes(file):
    def broken(data):
        raise TypeError("a mistake in the program")

    with pytest.raises(TypeError, match="a mistake in the program"):
        LoadOrStatus(broken, SHAPES)(item(file))
    with pytest.raises(ValueError, match="`instance_shapes` must have the shape of an instance for a key"):
        LoadOrStatus(LOAD, {})


def test_postprocess_or_status_skips_a_bag_that_is_not_done():
    process = PostprocessOrStatus(Compose([lambda data: {**data, "pred": 1}]))
    assert process({"status": "done"}) == {"status": "done", "pred": 1}
    assert process({"case_id": "a"}) == {"case_id": "a", "pred": 1}
    assert process({"status": "empty"}) == {"status": "empty"}


@pytest.mark.parametrize("error", [ValueError("no such head"), OSError(2, "no such head", "/secret/a.svs")])
def test_postprocess_or_status_records_an_error_of_a_file(error):
    def fail(data):
        raise error

    out = PostprocessOrStatus(Compose([fail]))({"case_id": "a", "status": "done"})
    assert out == {"case_id": "a", "status": "not written: no such head"}


def test_postprocess_or_status_raises_other_errors():
    with pytest.raises(KeyError, match="absent"):
        PostprocessOrStatus(lambda data: data["absent"])({})


def test_load_or_status_of_features_of_another_width_is_unreadable(file):
    load = LoadOrStatus(LOAD, {"image": [4], "position": []})
    out = load(item(file))
    assert out["status"] == "unreadable: features must have 4 columns, got 3."
    assert out["image"].shape == (1, 4)
    wide = LoadOrStatus(lambda data: {"image": torch.ones(2, 3, 3)}, {"image": [3]})
    assert wide({})["status"] == "unreadable: features must have 3 columns, got shape (2, 3, 3)."
    pictures = LoadOrStatus(lambda data: {"slices": torch.ones(2, 1, 9, 9)}, {"slices": [1, 8, 8]})
    assert pictures({})["status"] == "done"


def test_load_or_status_of_a_bag_without_a_key_is_unreadable():
    out = LoadOrStatus(lambda data: {"image": torch.ones(2, 3)}, {"image": [3], "position": []})({"case_id": "a"})
    assert out["status"] == "unreadable: `position` must be in the bag, got ['image']."


def test_load_or_status_takes_an_error_of_a_library_for_that_of_a_file():
    load = LoadOrStatus(Compose([lambda data: pydicom.Dataset().SliceThickness]), {"image": [3]})
    assert load({})["status"].startswith("unreadable: AttributeError: 'Dataset' object has no attribute")


def test_load_or_status_keeps_what_an_error_states_of_its_input():
    def refuse(item):
        text = "`image` must be regular, got a gap."
        raise InputError(text, "--irregular allow", "DICOM series", (4, 4, 9), (1, 1, 5))

    bag = LoadOrStatus(refuse, {"image": [4]})({"image": "a", "case_id": "a"})
    item = decollate_batch(BagCollate("image")([bag]))[0]
    assert item["status"] == "unreadable: `image` must be regular, got a gap."
    assert (item["option"], item["container"]) == ("--irregular allow", "DICOM series")
    assert (item["shape"], item["spacing"]) == ([4, 4, 9], [1, 1, 5])


def test_load_or_status_of_a_row_that_cannot_be_used(tmp_path):
    row = {"case_id": "a", "image": "", "input_error": "`image` must be given, got an empty cell"}
    out = LoadOrStatus(LOAD, SHAPES)(row)
    assert out["status"] == "unreadable: `image` must be given, got an empty cell."
    assert (out["case_id"], out["image"].shape) == ("a", (1, 3))
