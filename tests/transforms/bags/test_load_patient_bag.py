"""Tests of LoadPatientBag: several files as one bag."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from monai_mil_ext.data import write_bag
from monai_mil_ext.transforms import CheckSourced, LoadBagd, LoadOrStatus, LoadPatientBag, LoadPatientBagd, PatientBagd
from monai_mil_ext.utils import EmptyBagError


@pytest.fixture
def files(tmp_path):
    for name, size in (("a", 2), ("b", 3)):
        rows = np.arange(size, dtype=np.float16)[:, None] + np.zeros(4, np.float16)
        write_bag(tmp_path / f"{name}.h5", {"features": rows, "label": np.arange(size)}, {"side": 5})
    write_bag(tmp_path / "bare.h5", {"features": np.zeros((1, 4), np.float16)})
    write_bag(tmp_path / "wide.h5", {"features": np.zeros((1, 5), np.float16)})
    return tmp_path


def test_load_patient_bag_concatenates_files_with_their_index(files):
    bag = LoadPatientBag()([files / "b.h5", files / "a.h5"], keys=["label"])
    assert bag["features"].dtype == torch.float32
    assert bag["features"][:, 0].tolist() == [0, 1, 2, 0, 1]
    assert bag["label"].tolist() == [0, 1, 2, 0, 1]
    assert bag["slide_index"].tolist() == [0, 0, 0, 1, 1]
    assert LoadPatientBag(dtype=None)([files / "a.h5"])["features"].dtype == torch.float16


def test_load_patient_bagd_stores_all_arrays(files):
    item = {"image": [str(files / "a.h5"), str(files / "b.h5")], "patient": "p"}
    bag = LoadPatientBagd(["image", "label"])(item)
    assert bag.keys() == {"image", "patient", "label", "slide_index"}
    assert (bag["image"].shape, bag["slide_index"].tolist()) == ((5, 4), [0, 0, 1, 1, 1])
    assert item["image"][0].endswith("a.h5")
    assert LoadPatientBagd("image", allow_missing_keys=True)({"patient": "p"}) == {"patient": "p"}
    with pytest.raises(
        KeyError, match=r"`image` must be a list of paths of bag files, got no such key in \['patient'\]"
    ):
        LoadPatientBagd("image")({"patient": "p"})


def test_load_patient_bag_refuses_inconsistent_files(files):
    load = LoadPatientBag()
    with pytest.raises(ValueError, match=r"`features` must have a row of one shape and dtype .* got .*(4.*5|5.*4)"):
        load([files / "a.h5", files / "wide.h5"])
    with pytest.raises(ValueError, match="`label` must have a row"):
        load([files / "a.h5", files / "bare.h5"], keys=["label"], allow_missing_keys=True)
    with pytest.raises(ValueError, match="`side` must have a row"):
        load([files / "a.h5"], keys=["side"])
    for paths in ([], str(files / "a.h5")):
        with pytest.raises(ValueError, match="`image` must be a list of paths of bag files, got"):
            load(paths)
    with pytest.raises(FileNotFoundError, match=r"'none.h5'"):
        load([files / "a.h5", files / "none.h5"])


def test_patient_bagd_makes_the_bag_of_the_training(files):
    paths = [str(files / "b.h5"), str(files / "a.h5")]
    bag = PatientBagd("image", LoadBagd("image"))({"image": paths, "case_id": "p", "slide_mpp": [0.5, None]})
    trained = LoadPatientBagd("image")({"image": paths, "case_id": "p"})
    assert bag.keys() == {*trained, "notes", "slide_count"}
    assert bag["notes"] == "2 slides in one bag"
    assert torch.equal(bag["image"], trained["image"])
    assert torch.equal(bag["slide_index"], trained["slide_index"])


def test_patient_bagd_gives_each_slide_its_own_values(files):
    seen = []

    def load(item):
        seen.append({key: item.get(key) for key in ("image", "slide_mpp", "magnification")})
        return {**item, "image": torch.ones(1, 4), "coords": torch.zeros(1, 2)}

    item = {"image": ["a", "b"], "slide_mpp": [0.5, None], "magnification": [None, 20.0]}
    assert "coords" not in PatientBagd("image", load)(item)
    assert seen == [
        {"image": "a", "slide_mpp": 0.5, "magnification": None},
        {"image": "b", "slide_mpp": None, "magnification": 20.0},
    ]
    # one slide has coordinates, whether in a list or not
    assert "coords" in PatientBagd("image", load)({"image": ["a"]})
    assert "coords" in PatientBagd("image", load)({"image": "a"})


def test_patient_bagd_keeps_what_was_done_with_each_slide(files):
    notes = {"a": "0.25 follows from the magnification; the largest image was read", "b": "", "c": "ink was left out"}
    kinds = dict.fromkeys("abc", "OME-TIFF")

    def load(item):
        name = item["image"]
        return {**item, "image": torch.ones(1, 4), "notes": notes[name], "container": kinds[name]}

    bag = PatientBagd("image", load)({"image": ["a", "b", "c"]})
    assert bag["notes"].split("; ") == [
        "3 slides in one bag",
        "slide 1: 0.25 follows from the magnification",
        "slide 1: the largest image was read",
        "slide 3: ink was left out",
    ]
    assert (bag["container"], bag["slide_count"]) == ("OME-TIFF", 3)
    kinds["b"] = "Aperio SVS"
    assert "container" not in PatientBagd("image", load)({"image": ["a", "b"]})


def test_patient_bagd_passes_over_a_slide_without_instances(files):
    def load(item):
        if item["image"] == "glass":
            raise EmptyBagError("no tissue")
        return {**item, "image": torch.ones(2, 4)}

    bag = PatientBagd("image", load)({"image": ["glass", "a"]})
    assert (bag["slide_index"].tolist(), bag["notes"]) == ([1, 1], "2 slides in one bag, 1 of them without instances")
    status = LoadOrStatus(PatientBagd("image", load), {"image": [4]})
    assert status({"image": ["glass", "glass"], "case_id": "p"})["status"] == "empty"
    assert status({"image": ["glass"], "case_id": "p"})["status"] == "empty"


def test_patient_bagd_names_the_slide_that_fails(files):
    check = CheckSourced("image", None)
    load = PatientBagd("image", Compose([check, LoadBagd("image")]))
    good, bad = str(files / "a.h5"), str(files / "bare.h5")
    (files / "bare.h5").write_bytes(b"no bag")
    status = LoadOrStatus(load, {"image": [4]})({"image": [good, bad], "case_id": "p"})["status"]
    assert status.startswith("unreadable: slide 2 of 2: `path` must be")
    assert "bare" not in status
    (files / "b.h5").unlink()
    wide = LoadOrStatus(load, {"image": [4]})({"image": [good, str(files / "wide.h5")], "case_id": "p"})["status"]
    assert wide == "unreadable: features must have one width in all slides of a patient, got [(4,), (5,)]."
    with pytest.raises(ValueError, match="`image` must be a list of paths of slides, got an empty one"):
        load({"image": []})
    with pytest.raises(ValueError, match="`keys` must name one path of an item"):
        PatientBagd(["image", "coords"], check)


def test_patient_bagd_joins_the_labels_of_instances_where_each_slide_has_them(files, tmp_path):
    load = PatientBagd("image", LoadBagd(["image", "instance_label"], allow_missing_keys=True))
    for name, labels in (("a", [0, 1]), ("b", [0, 0, 1])):
        np.save(tmp_path / f"{name}.npy", labels)
    slides, labels = [[str(tmp_path / f"{name}.{end}") for name in "ab"] for end in ("h5", "npy")]
    assert load({"image": slides, "instance_label": labels})["instance_label"].tolist() == [0, 1, 0, 0, 1]
    assert load({"image": slides[1:], "instance_label": labels[1:]})["instance_label"].tolist() == [0, 0, 1]
    for partly in (slides, slides[:1]):
        assert "instance_label" not in load({"image": partly, "instance_label": [None, labels[1]]})
