"""Tests of OrdinalLoss and its probabilities: known values, order, extremes; common laws are in tests/contracts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from monai_mil_ext.losses import OrdinalLoss, ordinal_probabilities

some_logits = st.lists(st.lists(st.floats(-200, 200), min_size=3, max_size=3), min_size=1, max_size=5)


def test_ordinal_loss_matches_manual_computation():
    z = torch.tensor([[math.log(3), math.log(1 / 4)]]).expand(3, 2)  # above 0 with 3/4, above 1 with 1/5
    each = -torch.tensor([1 / 4 * 4 / 5, 3 / 4 * 4 / 5, 3 / 4 * 1 / 5]).log()
    assert_close(OrdinalLoss("none")(z, torch.tensor([0, 1, 2])), each)
    assert_close(OrdinalLoss()(z, torch.tensor([0, 1, 2])), each.mean())
    assert_close(ordinal_probabilities(z[:1]), torch.tensor([[1 / 4, 3 / 4 - 1 / 5, 1 / 5]]))


def test_ordinal_loss_of_two_classes_is_binary_cross_entropy():
    z, y = torch.randn(9, 1), torch.randint(0, 2, (9,))
    assert_close(OrdinalLoss()(z, y), binary_cross_entropy_with_logits(z[:, 0], y.float()))
    assert_close(ordinal_probabilities(z)[:, 1], z[:, 0].sigmoid())


def test_ordinal_loss_increases_with_distance():
    sure_of_two = torch.tensor([[4.0, 4.0, -4.0, -4.0]]).expand(5, 4)
    cost = OrdinalLoss("none")(sure_of_two, torch.arange(5))
    assert_close(cost - cost[2], torch.tensor([8.0, 4, 0, 4, 8]), rtol=0, atol=1e-5)


@given(z=some_logits, double=st.booleans())
def test_ordinal_probabilities_sum_to_one_for_any_logits(z, double):
    p = ordinal_probabilities(torch.tensor(z, dtype=torch.float64 if double else torch.float32))
    assert p.shape == (len(z), 4)
    assert (p >= 0).all()
    assert_close(p.sum(1), torch.ones_like(p[:, 0]))


@given(z=some_logits)
def test_ordinal_probabilities_use_decreasing_logits_unchanged(z):
    z = torch.tensor(z, dtype=torch.float64).sort(dim=1, descending=True).values
    above = 1 - ordinal_probabilities(z).cumsum(1)[:, :-1]
    assert_close(above, z.sigmoid(), rtol=1e-9, atol=1e-12)


def test_ordinal_probabilities_ignore_increasing_logits():
    assert_close(ordinal_probabilities(torch.tensor([[0.5, 3.0, -1.0]]))[0, 1].item(), 0.0)
    p = ordinal_probabilities(torch.tensor([[0.5, 3.0, -1.0]]))
    assert_close(p, ordinal_probabilities(torch.tensor([[0.5, 0.5, -1.0]])))


def test_ordinal_probabilities_keep_digits_of_small_values():
    p = ordinal_probabilities(torch.tensor([[30.0, 29.0, -60.0]]))
    assert_close(p[0, 0].item(), math.exp(-30), rtol=1e-5, atol=0)
    assert_close(p[0, 1].item(), math.exp(-29) - math.exp(-30), rtol=1e-5, atol=0)
    assert_close(p[0, 3].item(), math.exp(-60), rtol=1e-5, atol=0)
    inf = float("inf")
    assert ordinal_probabilities(torch.tensor([[inf, inf], [inf, -inf], [-inf, inf]])).tolist() == [
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
    ]


@given(seed=st.integers(0, 2**16))
def test_ordinal_loss_is_minimal_at_the_true_probabilities(seed):
    """Check that the expected loss of decreasing logits is minimal at the probabilities of the labels."""
    torch.manual_seed(seed)
    true = torch.rand(1, 3, dtype=torch.float64).sort(descending=True).values.clamp(0.01, 0.99).logit()
    p, loss = ordinal_probabilities(true)[0], OrdinalLoss("none")

    def expected(z):
        return (p * loss(z.expand(4, 3), torch.arange(4))).sum()

    assert expected(true) <= expected(true + 0.3 * torch.randn(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("label", [-1, 3, 0.5, torch.nan])
def test_ordinal_loss_rejects_labels_that_are_no_class(label):
    with pytest.raises(ValueError, match=f"`label` must be whole numbers from 0 to 2, got {float(label)}"):
        OrdinalLoss()(torch.zeros(2, 2), torch.tensor([1, label]))


def test_ordinal_probabilities_reject_bad_logits():
    with pytest.raises(
        ValueError, match=r"`logits` must be floating point of shape \(B, K\) .*, got torch.float32 \(3,\)"
    ):
        ordinal_probabilities(torch.zeros(3))
