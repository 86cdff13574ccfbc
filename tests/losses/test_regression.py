"""Tests of RegressionLoss: known values, unknown targets, shapes; common laws are in tests/contracts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.losses import RegressionLoss

NAN, INF = torch.nan, float("inf")


def test_regression_loss_matches_manual_computation():
    z, y = torch.tensor([[1.0, 0.0], [-1.0, 7.0]]), torch.tensor([[3.0, 0.5], [0.0, NAN]])
    assert_close(RegressionLoss(reduction="none")(z, y), torch.tensor([[4.0, 0.25], [1.0, 0.0]]))
    assert_close(RegressionLoss()(z, y).item(), 5.25 / 3)  # not 4, and not the mean of the means of targets
    assert_close(RegressionLoss(1.5, "none")(z, y), torch.tensor([[1.5 * 1.25, 0.125], [0.5, 0.0]]))


@given(seed=st.integers(0, 2**16), delta=st.none() | st.floats(0.1, 3))
def test_regression_loss_matches_torch_on_known_targets(seed, delta):
    torch.manual_seed(seed)
    z, y, known = torch.randn(5, 3), torch.randn(5, 3) * 3, torch.rand(5, 3) < 0.6
    known[0, 0] = True
    expected = (nn.MSELoss() if delta is None else nn.HuberLoss(delta=delta))(z[known], y[known])
    assert_close(RegressionLoss(delta)(z, y.masked_fill(~known, NAN)), expected)


@pytest.mark.parametrize("delta", [None, 1.0])
@given(output=st.sampled_from([7.0, -1e30, INF, -INF, NAN]))
def test_regression_loss_ignores_outputs_of_unknown_targets(delta, output):
    values, gradients = [], []
    for junk in (0.0, output):
        z = torch.tensor([[0.3, junk, -2.0]], requires_grad=True)
        values.append(RegressionLoss(delta)(z, torch.tensor([[1.0, NAN, 0.0]])))
        values[-1].backward()
        gradients.append(z.grad)
    assert values[0] == values[1]
    assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert gradients[1][0, 1] == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_regression_loss_without_known_targets_is_zero(reduction):
    z = torch.randn(2, 3, requires_grad=True)
    value = RegressionLoss(reduction=reduction)(z, torch.full((2, 3), NAN))
    value.sum().backward()
    assert not value.any()
    assert not z.grad.any()


def test_regression_loss_takes_a_single_target_without_an_axis():
    """Check shapes (B,) and (B, 1), which MSELoss would broadcast to (B, B)."""
    z, y = torch.randn(4, 1), torch.tensor([1.0, NAN, 0.0, 2.0])
    assert_close(RegressionLoss()(z, y), RegressionLoss()(z, y.unsqueeze(1)), rtol=0, atol=0)
    with pytest.warns(UserWarning, match="different to the input size"):
        assert nn.MSELoss(reduction="none")(z, y).shape == (4, 4)
    with pytest.raises(ValueError, match=r"`label` must have shape \(B, C\) = \(2, 2\), got \(2,\)"):
        RegressionLoss()(torch.zeros(2, 2), torch.zeros(2))


def test_regression_loss_takes_targets_of_any_dtype():
    assert RegressionLoss()(torch.zeros(2, 1), torch.tensor([3, 1])) == 5


def test_regression_loss_rejects_bad_input():
    with pytest.raises(ValueError, match="`label` must be finite, or NaN if unknown, got -inf"):
        RegressionLoss()(torch.zeros(1, 2), torch.tensor([[NAN, -INF]]))
    for delta in (0, -1.0, NAN):
        with pytest.raises(ValueError, match=f"`delta` must be positive and finite, got {delta}"):
            RegressionLoss(delta)
