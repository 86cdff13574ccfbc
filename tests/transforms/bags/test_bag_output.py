"""Tests of BagProbabilities, MaskToInstanceLabel and UnpackBagOutputd."""

import numpy as np
import pytest
import torch

from monai_mil_ext.losses import ordinal_probabilities, survival_curve
from monai_mil_ext.transforms import (
    BagProbabilities,
    BagProbabilitiesd,
    MaskToInstanceLabel,
    MaskToInstanceLabeld,
    UnpackBagOutputd,
)


def test_mask_to_instance_label_of_one_voxel_is_positive():
    mask = torch.zeros(4, 1, 3, 3)
    mask[1, 0, 2, 2] = 1
    mask[3] = 255
    mask[2] = -1
    assert MaskToInstanceLabel()(mask).tolist() == [0, 1, 0, 1]
    assert MaskToInstanceLabel()(mask.numpy().astype(np.int16)).dtype == torch.int64
    assert MaskToInstanceLabeld("m")({"m": mask > 0, "x": 1})["m"].tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"`mask` must have shape \(N, \.\.\.\) with voxels, got \(4,\)"):
        MaskToInstanceLabel()(torch.ones(4))


def test_unpack_bag_outputd_gives_each_value_its_key():
    output = {"logits": torch.tensor([1.0]), "attention": torch.tensor([0.3, 0.7]), "scores": torch.ones(2)}
    item = {"pred": output, "label": 1}
    out = UnpackBagOutputd()(item)
    assert out["pred"] is output["logits"]
    assert out["attention"] is output["attention"]
    assert set(out) == {"pred", "label", "attention", "scores"}
    assert item["pred"] is output


@pytest.mark.parametrize(("output", "got"), [(torch.ones(2), "Tensor"), ({"attention": 1}, r"\['attention'\]")])
def test_unpack_bag_outputd_names_a_wrong_output(output, got):
    with pytest.raises(ValueError, match=rf"`pred` must be a mapping with 'logits' .*, got {got}\."):
        UnpackBagOutputd("pred")({"pred": output})


@pytest.mark.parametrize("z", [-3.0, 0.0, 1.5, 90.0])
def test_bag_probabilities_of_one_logit_equal_those_of_two(z):
    from_one, from_two = BagProbabilities()(torch.tensor([z])), BagProbabilities()(torch.tensor([0.0, z]))
    assert torch.equal(from_one, from_two)
    assert from_one[1].item() == pytest.approx(1 / (1 + np.exp(-z)))
    assert from_one.sum().item() == pytest.approx(1)


def test_bag_probabilities_of_several_logits_are_a_softmax():
    logits = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(BagProbabilities()(logits), logits.exp() / logits.exp().sum())
    with pytest.raises(ValueError, match=r"`logits` must have shape \(K,\), got \(1, 2\)"):
        BagProbabilities()(torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bag_probabilities_of_half_precision_sum_to_one(dtype):
    p = BagProbabilities()(torch.tensor([1.0, 2.5, 0.3], dtype=dtype))
    assert p.dtype == torch.float32
    assert p.sum().item() == pytest.approx(1, abs=1e-6)


def test_bag_probabilities_of_other_tasks_are_those_of_their_losses():
    z = torch.tensor([[1.0, -0.5, 2.0]])
    expected = {
        "multilabel": z.sigmoid(),
        "ordinal": ordinal_probabilities(z),
        "survival": survival_curve(z),
    }
    for task, p in expected.items():
        assert torch.equal(BagProbabilitiesd(task=task)({"pred": z[0]})["pred"], p[0])
    with pytest.raises(ValueError, match=r"`task` must be one of 'classification', .*, got 'binary'"):
        BagProbabilities("binary")
