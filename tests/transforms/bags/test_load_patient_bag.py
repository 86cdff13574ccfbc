"""Tests of LoadPatientBag: several files as one bag."""

import numpy as np
import pytest
import torch

from monai_mil_ext.data import write_bag
from monai_mil_ext.transforms import LoadPatientBag, LoadPatientBagd


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
