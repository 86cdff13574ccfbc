"""Tests of LoadCellBag: the cells of a patient as a bag."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from PIL import Image

from monai_mil_ext.data import BagCollate
from monai_mil_ext.transforms import LoadCellBag, LoadCellBagd


def write(folder, sizes):
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (51 * i, 255, 0)).save(folder / f"{i}.png")
    return folder


def test_load_cell_bag_resizes_cells_and_sorts_them_by_name(tmp_path):
    bag = LoadCellBag(size=(6, 8))(write(tmp_path / "p", [(20, 30), (8, 6), (3, 3)]))
    assert isinstance(bag, MetaTensor)
    assert bag.shape == (3, 3, 6, 8)
    assert bag.dtype == torch.float32
    assert bag.meta["cell_names"] == ["0.png", "1.png", "2.png"]
    assert bag[:, :, 0, 0].numpy() == pytest.approx(np.array([[0, 1, 0], [0.2, 1, 0], [0.4, 1, 0]]))


def test_load_cell_bag_without_size_requires_equal_sizes(tmp_path):
    assert LoadCellBag(size=None, channels=1)(write(tmp_path / "p", [(5, 4), (5, 4)])).shape == (2, 1, 4, 5)
    rule = r"cell '1.png' of 'q' must have the size \(4, 5\) of '0.png' unless all are resized, got \(4, 6\)"
    with pytest.raises(ValueError, match=rule):
        LoadCellBag(size=None)(write(tmp_path / "q", [(5, 4), (6, 4)]))


def test_load_cell_bagd_bags_are_collated(tmp_path):
    items = [{"image": str(write(tmp_path / f"p{n}", [(9, 9)] * n)), "label": n % 2} for n in (1, 3)]
    data = Dataset(items, LoadCellBagd("image", size=4, channels=1))
    batch = next(iter(DataLoader(data, batch_size=2, collate_fn=BagCollate("image"))))
    assert batch["image"].shape == (2, 3, 1, 4, 4)
    assert batch["mask"].sum(1).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be a positive integer, got 0"),
        ({"size": (3, -1)}, "`size` must be a positive integer, got -1"),
        ({"channels": 4}, "`channels` must be 1 or 3, got 4"),
        ({"max_cells": 0}, "`max_cells` must be a positive integer, got 0"),
    ],
)
def test_load_cell_bag_names_invalid_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LoadCellBag(**options)
