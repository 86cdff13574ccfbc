"""Tests of the transform that keeps the transform history of a scan."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Invertd

from monai_mil_ext.transforms import KeepTransformHistoryd, SliceBagd, SliceSelection
from tests.transforms.geometry import scan

STEPS = Compose([Flipd("image", 0), SliceBagd("image", selection=SliceSelection(stride=2))])


def test_keep_transform_historyd_copies_the_history():
    item = STEPS({"image": scan((5, 4, 3), np.eye(4))})
    out = KeepTransformHistoryd(["image", "other"], allow_missing_keys=True)(item)
    assert [step["class"] for step in out["image_transforms"]] == ["Flip", "SliceBag"]
    assert "image_transforms" not in item
    item["image"].applied_operations.pop()
    assert len(out["image_transforms"]) == 2


def test_keep_transform_historyd_serves_invertd_after_encoding():
    item = KeepTransformHistoryd("image")(STEPS({"image": scan((5, 4, 3), np.eye(4))}))
    item["scores"] = MetaTensor(torch.tensor([1.0, 2.0]))
    item["image"] = item["image"].as_tensor().flatten(1)  # as an encoder returns it
    volume = Invertd("scores", STEPS, orig_keys="image")(item)["scores"]
    assert volume.shape == (1, 5, 4, 3)
    assert volume[0, 0, 0].tolist() == [1, 0, 2]


def test_keep_transform_historyd_refuses_a_plain_tensor():
    with pytest.raises(ValueError, match="`image` must be a MetaTensor, which has a history, got Tensor"):
        KeepTransformHistoryd("image")({"image": torch.ones(2)})
