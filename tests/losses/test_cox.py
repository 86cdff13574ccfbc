"""Tests of CoxLoss: lifelines, the equation in plain loops, and the laws of label losses that hold for a risk set."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.losses import CoxLoss

some_batch = given(size=st.integers(1, 9), seed=st.integers(0, 2**16), scale=st.sampled_from([0.01, 1.0, 50.0]))


def batch(size, seed, scale=1.0, distinct=4, dtype=torch.float64):
    """Return logits and labels of which many are tied."""
    torch.manual_seed(seed)
    label = torch.stack([torch.randint(1, distinct + 1, (size,)), torch.randint(0, 2, (size,))], dim=1)
    return torch.randn(size, 1, dtype=dtype) * scale, label


def equation(z, label):
    """Compute the loss with Efron's ties, sum by sum."""
    z, label, total = z.squeeze(1).tolist(), label.tolist(), 0.0
    for t in {time for time, event in label if event}:
        tied = [z[i] for i, (time, event) in enumerate(label) if time == t and event]
        at_risk = sum(math.exp(z[i]) for i, (time, _) in enumerate(label) if time >= t)
        each = sum(map(math.exp, tied))
        total += sum(math.log(at_risk - i / len(tied) * each) for i in range(len(tied))) - sum(tied)
    return total


@pytest.mark.parametrize("distinct", [6, 10_000], ids=["ties", "no-ties"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cox_loss_equals_lifelines(distinct, seed):
    pd, lifelines = pytest.importorskip("pandas"), pytest.importorskip("lifelines")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 2))
    time = rng.integers(1, distinct + 1, 120)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(time=time, event=rng.random(120) < 0.6)
    fitted = lifelines.CoxPHFitter().fit(frame, "time", "event")
    z = torch.tensor(x @ fitted.params_.to_numpy()).unsqueeze(1)
    label = torch.tensor(frame[["time", "event"]].to_numpy(dtype=float))
    assert_close(CoxLoss(reduction="sum")(z, label).item(), -fitted.log_likelihood_, rtol=0, atol=1e-8)
    assert_close(CoxLoss()(z, label).item(), -fitted.log_likelihood_ / frame["event"].sum(), rtol=0, atol=1e-8)


@some_batch
def test_cox_loss_matches_the_equation(size, seed, scale):
    z, label = batch(size, seed, min(scale, 10))
    assert_close(CoxLoss(reduction="sum")(z, label).item(), equation(z, label), rtol=1e-9, atol=1e-9)


@some_batch
def test_cox_loss_depends_neither_on_the_order_of_bags_nor_on_a_common_shift(size, seed, scale):
    z, label = batch(size, seed, scale)
    order, each = torch.randperm(size), CoxLoss(reduction="none")
    assert_close(each(z[order], label[order]), each(z, label)[order])
    assert_close(each(z + 3, label), each(z, label))
    assert (each(z, label) >= -1e-9).all()
    assert not each(z, label)[label[:, 1] == 0].any()
    assert_close(each(z, label).sum(), CoxLoss(reduction="sum")(z, label))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cox_loss_gradients_are_exact(reduction):
    z, label = batch(8, 0)
    assert torch.autograd.gradcheck(lambda z: CoxLoss(reduction)(z, label), z.requires_grad_())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_cox_loss_without_events_is_zero(reduction, size):
    z = torch.randn(size, 1, requires_grad=True)
    value = CoxLoss(reduction)(z, torch.stack([torch.arange(size), torch.zeros(size)], dim=1))
    value.sum().backward()
    assert not value.any()
    assert not z.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_cox_loss_in_half_precision_is_finite_and_computed_in_float32(dtype, scale):
    z, label = batch(64, 0, scale, dtype=dtype)
    z.requires_grad_()
    value = CoxLoss()(z, label)
    value.backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(CoxLoss()(z, label), value, rtol=0, atol=0)
    assert_close(value, CoxLoss()(z.float(), label), rtol=0, atol=0)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert z.grad.isfinite().all()


def test_cox_loss_is_exact_for_extreme_risks():
    """Check a tied group that outweighs all others: the difference of sums would lose them."""
    z = torch.tensor([[100.0], [100.0], [0.0]], dtype=torch.float64)
    value = CoxLoss(reduction="sum")(z, torch.tensor([1, 1, 2]), torch.tensor([1, 1, 0]))
    assert_close(value.item(), math.log(2))
    z = torch.tensor([[-200.0], [200.0]])
    assert CoxLoss()(z, torch.tensor([1, 2]), torch.tensor([1, 0])).item() == 400.0


def test_cox_loss_takes_time_and_event_as_one_label():
    z, label = batch(6, 1)
    assert_close(CoxLoss()(z, label), CoxLoss()(z, label[:, 0] / 7, label[:, 1].bool()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("logits", "time", "event", "message"),
    [
        ((2, 1), [0, torch.nan], [1, 1], "`time` must be finite, got nan"),
        ((2, 1), [0, torch.inf], [1, 1], "`time` must be finite, got inf"),
        ((2, 1), [0, 1.5], [1, 2], "`event` must be whole numbers from 0 to 1, got 2.0"),
        ((2, 1), [0, 1], [1], r"`event` must have shape \(B,\) = \(2,\), got \(1,\)"),
        ((2, 1), [0], [1, 1], r"`time` must have shape \(B,\) = \(2,\), got \(1,\)"),
        ((2, 1), [0, 1], None, r"`time` must have shape \(B, 2\) if `event` is None, got \(2,\)"),
        ((2, 3), [0, 1], [1, 1], r"`logits` must have shape \(B, 1\), got \(2, 3\)"),
        ((2,), [0, 1], [1, 1], r"`logits` must be floating point of shape \(B, K\) with K >= 1, got torch"),
    ],
)
def test_cox_loss_rejects_bad_input(logits, time, event, message):
    with pytest.raises(ValueError, match=message):
        CoxLoss()(torch.zeros(logits), torch.tensor(time), None if event is None else torch.tensor(event))
