"""Tests of the readers of labels that are files of their own."""

import numpy as np
import pytest
import torch

from monai_mil_ext.data import BagFileError, write_bag
from monai_mil_ext.data.bags.label_files import read_bag_label, read_instance_labels


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, bool])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_instance_labels_are_one_number_each(tmp_path, dtype, shape):
    np.save(tmp_path / "a.npy", np.array([0, 1, 1], dtype).reshape(shape))
    labels = read_instance_labels(tmp_path / "a.npy")
    assert labels.shape == (3,)
    assert labels.tolist() == [0, 1, 1]


def test_instance_labels_of_a_bag_file(tmp_path):
    write_bag(tmp_path / "a.h5", {"features": torch.ones(2, 3), "instance_label": torch.tensor([1, 0])})
    assert read_instance_labels(tmp_path / "a.h5").tolist() == [1, 0]


@pytest.mark.parametrize(("value", "label"), [([1], 1), (0, 0), ([2.0], 2), ([[0.5]], 0.5), (True, 1)])
def test_label_of_a_bag_is_a_number(tmp_path, value, label):
    np.save(tmp_path / "a.npy", np.array(value))
    assert read_bag_label(tmp_path / "a.npy") == label


@pytest.mark.parametrize("read", [read_bag_label, read_instance_labels])
def test_other_files_are_refused_by_name_without_their_folder(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"file of labels that exists, got 'none.npy'\.$"):
        read(tmp_path / "none.npy")
    np.save(tmp_path / "good.npy", np.arange(40))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name in ("cut", "words", "objects"):
        with pytest.raises(BagFileError, match=rf"`path` must be an? .*, got .*'{name}\.npy'"):
            read(tmp_path / f"{name}.npy")


def test_arrays_of_another_shape_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(BagFileError, match=r"a label for each instance, got \(2, 2\) in 'a.npy'"):
        read_instance_labels(tmp_path / "a.npy")
    with pytest.raises(BagFileError, match=r"`label` must be one number, got \(2, 2\) in 'a.npy'"):
        read_bag_label(tmp_path / "a.npy")
