"""Tests of the results of a scan for clients, and of the bands as a label map."""

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.label import ScoresToLabelMapd
from monai_mil_ext.apps.label.label_map import scan_result
from monai_mil_ext.data import ScoreBands
from monai_mil_ext.transforms import LoadScand, SliceBagd
from monai_mil_ext.utils import InputError
from tests.scans import write_series
from tests.transforms.geometry import scan

SLICES = [{"slice_index": i, "position_mm": 5.0 * i, "attention": a} for i, a in enumerate((0.1, 0.6, 0.0, 0.3))]


def test_scan_result_has_scores_uncertainty_and_bands():
    result = scan_result({"probability": [0.5, 0.5]}, ["benign", "malignant"], SLICES, ScoreBands(top_k=(1, 3)))
    assert [entry.pop("band") for entry in result["slices"]] == [2, 1, 0, 2]
    assert result["slices"] == SLICES
    assert result["prediction"][1] == {"idx": 1, "label": "malignant", "score": 0.5}
    assert (result["uncertainty"], result["use"]) == (1.0, "research use only")
    several = scan_result({"probability": [0.5, 0.2, 0.3]}, ["benign", "malignant"], SLICES, ScoreBands())
    assert [entry["label"] for entry in several["prediction"]] == ["0", "1", "2"]


def test_scores_to_label_mapd_gives_the_values_of_a_task_without_classes():
    item = SliceBagd("image")({"image": scan((5, 4, 4), np.diag([1.0, 1, -2, 1]))})
    item |= {"pred": torch.tensor([61.5]), "attention": torch.full((4, 1), 0.25), "mask": torch.ones(4) > 0}
    result = ScoresToLabelMapd("pred", ["benign", "malignant"], task="regression")(item)["result"]
    assert result["prediction"] == [{"idx": 0, "label": "value", "score": 61.5}]


def test_scores_to_label_mapd_marks_the_bands_in_the_scan():
    item = SliceBagd("image")({"image": scan((5, 4, 4), np.diag([1.0, 1, -2, 1]))})
    attention = torch.tensor([[0.1, 0.6, 0.0, 0.3, 0.9]]).T  # a row of padding
    item |= {"pred": torch.tensor([0.2, 0.8]), "attention": attention, "mask": torch.tensor([True] * 4 + [False])}
    for name in ("slice_index", "position"):
        item[name] = torch.cat([item[name], item[name][:1]])
    out = ScoresToLabelMapd("pred", ["benign", "malignant"], top_k=(1, 3))(item)
    assert out["pred"].shape == (1, 5, 4, 4)
    assert out["pred"][0, 0, 0].tolist() == [2, 0, 1, 2]  # the third axis points down, slices ascend
    assert [entry["band"] for entry in out["result"]["slices"]] == [2, 1, 0, 2]
    assert out["result"]["prediction"][1]["score"] == pytest.approx(0.8)
    assert item["pred"].shape == (2,)


def test_scores_to_label_mapd_refuses_slices_of_an_irregular_series(tmp_path):
    write_series(tmp_path / "s", heights=np.array([0, 2.5, 7.5, 10]))
    item = SliceBagd("image")(LoadScand("image", irregular="allow")({"image": tmp_path / "s"}))
    with pytest.raises(InputError, match="must be a regular stack of slices for a label map") as error:
        ScoresToLabelMapd("pred", ["benign", "malignant"])(item)
    assert error.value.option == "--irregular resample"
