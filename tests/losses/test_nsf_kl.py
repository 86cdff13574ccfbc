"""Tests of NSFKLLoss: golden values and closed forms; the laws of losses on scores are in tests/contracts."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.losses import NSFKLLoss
from tests.networks.normalized_sigmoid import normalized_sigmoid

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "asmil.json").read_text())["loss"]


def gradient(loss, z, anchor, mask=None):
    z = z.clone().requires_grad_()
    loss(z, anchor, mask).backward()
    return z.grad


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["temperature"]))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_nsf_kl_has_golden_values(case, dtype, tolerance):
    z, anchor = (torch.tensor(GOLDEN[name], dtype=dtype).unsqueeze(0) for name in ("scores", "anchor_scores"))
    loss = NSFKLLoss(temperature=case["temperature"])
    assert_close(loss(z, anchor).item(), case["value"], rtol=tolerance, atol=tolerance)
    expected = torch.tensor(case["gradient"], dtype=dtype).unsqueeze(0)
    assert_close(gradient(loss, z, anchor), expected, rtol=tolerance, atol=tolerance)


def test_nsf_kl_gradient_is_attention_minus_target():
    z, anchor = torch.randn(2, 1, 9, 1, dtype=torch.float64)
    assert_close(gradient(NSFKLLoss(), z, anchor), z.softmax(1) - normalized_sigmoid(anchor), rtol=0, atol=1e-12)


def test_nsf_kl_matches_the_averages_of_the_published_code():
    z, anchor = torch.randn(2, 2, 9, 6, dtype=torch.float64)
    released = gradient(NSFKLLoss(over_instances="mean"), z, anchor)
    assert_close(released, gradient(NSFKLLoss(), z, anchor) / 9, rtol=0, atol=1e-12)
    target = normalized_sigmoid(anchor)
    assert_close(released, (z.softmax(1) - target) / (2 * 6 * 9), rtol=0, atol=1e-12)
    cross_entropy = -(target * z.log_softmax(1)).mean()  # differs by the entropy of the target, which has no gradient
    entropy = -(target * target.log()).mean()
    assert_close(NSFKLLoss(over_instances="mean")(z, anchor), cross_entropy - entropy, rtol=0, atol=1e-12)


def test_nsf_kl_of_the_target_is_zero():
    anchor = torch.randn(2, 9, 3, dtype=torch.float64)
    for temperature, center in ((1.0, "none"), (0.5, "mean")):
        z = normalized_sigmoid(anchor, temperature=temperature, center=center).log() + 5
        assert abs(NSFKLLoss(temperature, center)(z, anchor).item()) < 1e-12


def test_nsf_kl_of_very_low_anchor_scores_is_finite():
    z, anchor = torch.randn(1, 9, 1), torch.full((1, 9, 1), -200.0)
    assert_close(NSFKLLoss()(z, anchor).item(), -math.log(9) - z.log_softmax(1).mean().item(), rtol=1e-5, atol=0)


def test_nsf_kl_depends_on_a_shift_of_the_anchor_unless_centered():
    z, anchor = torch.randn(2, 1, 9, 1, dtype=torch.float64)
    assert not torch.isclose(NSFKLLoss()(z, anchor + 5), NSFKLLoss()(z, anchor))
    centered = NSFKLLoss(center="mean")
    assert_close(centered(z, anchor + 5), centered(z, anchor))


def test_nsf_kl_mean_ignores_empty_bags():
    z, anchor = torch.randn(2, 3, 6, 2, dtype=torch.float64)
    mask = torch.tensor([[True] * 6, [False] * 6, [True] * 4 + [False] * 2])
    each = NSFKLLoss(reduction="none")(z, anchor, mask)
    assert each.shape == (3,)
    assert each[1] == 0
    assert_close(NSFKLLoss(reduction="sum")(z, anchor, mask), each.sum())
    assert_close(NSFKLLoss()(z, anchor, mask), each.sum() / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive and finite, got 0.0"),
        ({"center": "max"}, "`center` must be one of 'none', 'mean', got 'max'"),
        ({"over_instances": "max"}, "`over_instances` must be one of 'sum', 'mean', got 'max'"),
        ({"reduction": "max"}, "`reduction` must be one of .*, got 'max'"),
    ],
)
def test_nsf_kl_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NSFKLLoss(**options)
