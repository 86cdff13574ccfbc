"""Tests of joining bags of several sources."""

import pytest
import torch
from monai.data import MetaTensor
from torch.testing import assert_close

from monai_mil_ext.transforms import JoinSourcesd

ITEM = {"a": torch.arange(6.0).view(3, 2), "b": torch.arange(4.0).view(1, 4)}


def test_features_are_joined_with_the_index_of_their_source():
    out = JoinSourcesd(["a", "b"], "bag")(ITEM)
    assert out["bag"].tolist() == [[0, 1, 0, 0, 0], [2, 3, 0, 0, 0], [4, 5, 0, 0, 0], [0, 1, 2, 3, 1]]
    assert out["bag_source"].tolist() == [0, 0, 0, 1]
    assert set(ITEM) == {"a", "b"}


def test_other_sources_keep_their_index_where_one_is_missing():
    join = JoinSourcesd(["a", "b"], num_features=5, allow_missing_keys=True)
    out = join({"b": ITEM["b"]})["image"]
    assert out.shape == (1, 6)
    assert out[0, -1] == 1
    with pytest.raises(ValueError, match="`keys` must have at least one item, got none of a, b"):
        join({})
    with pytest.raises(KeyError, match="a"):
        JoinSourcesd(["a", "b"])({"b": ITEM["b"]})


def test_half_precision_and_metatensors_become_plain_tensors_of_the_same_dtype():
    out = JoinSourcesd(["a", "b"])({key: MetaTensor(bag.half()) for key, bag in ITEM.items()})["image"]
    assert (type(out), out.dtype) == (torch.Tensor, torch.float16)
    assert_close(out.float(), JoinSourcesd(["a", "b"])(ITEM)["image"])


@pytest.mark.parametrize("bag", [torch.ones(3), torch.ones(2, 3, 1), torch.ones(2, 3).long()])
def test_other_shapes_are_refused(bag):
    with pytest.raises(ValueError, match=r"`a` must be a bag \(n, f\) of floating-point features"):
        JoinSourcesd(["a"])({"a": bag})


def test_too_many_features_are_refused():
    with pytest.raises(ValueError, match="`num_features` must be at least that of the bags, 4, got 3"):
        JoinSourcesd(["a", "b"], num_features=3)(ITEM)
