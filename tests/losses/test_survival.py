"""Tests of DiscreteSurvivalLoss: known values, float64 equation, likelihoods that sum to one, extremes."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.losses import DiscreteSurvivalLoss, survival_curve

HAZARDS = torch.tensor([[1 / 4, 1 / 3, 1 / 2]], dtype=torch.float64)  # survival: 3/4, 1/2, 1/4


def test_survival_loss_matches_manual_computation():
    z, t = HAZARDS.logit().expand(3, 3), torch.arange(3)
    died, censored = torch.tensor([1 / 4, 1 / 4, 1 / 4]).double(), torch.tensor([3 / 4, 1 / 2, 1 / 4]).double()
    loss = DiscreteSurvivalLoss(reduction="none")
    assert_close(survival_curve(z[:1]), censored.unsqueeze(0))
    assert_close(loss(z, t, torch.ones(3)), -died.log())
    assert_close(loss(z, t, torch.zeros(3)), -censored.log())
    mixed = torch.tensor([1, 0, 1])
    expected = (math.log(4) + 0.6 * math.log(2) + math.log(4)) / 3
    assert_close(DiscreteSurvivalLoss(alpha=0.4)(z, t, mixed).item(), expected)


@given(seed=st.integers(0, 2**16), alpha=st.floats(0, 1))
def test_survival_loss_matches_published_equation(seed, alpha):
    torch.manual_seed(seed)
    z, t, e = torch.randn(6, 5, dtype=torch.float64), torch.randint(0, 5, (6,)), torch.randint(0, 2, (6,))
    value = DiscreteSurvivalLoss(alpha)(z, t, e)
    total = 0.0
    for i in range(6):
        h = [1 / (1 + math.exp(-x)) for x in z[i].tolist()]
        before = math.prod(1 - h[s] for s in range(t[i]))
        event = -int(e[i]) * (math.log(before) + math.log(h[t[i]]))
        censored = -(1 - int(e[i])) * math.log(before * (1 - h[t[i]]))
        total += (1 - alpha) * (event + censored) + alpha * event
    assert_close(value.item(), total / 6, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_survival_loss_probabilities_of_all_events_sum_to_one(seed, scale):
    """Check that the probabilities of an event in each bin, and of none, sum to one."""
    torch.manual_seed(seed)
    z = (torch.randn(1, 4, dtype=torch.float64) * scale).expand(5, 4)
    nll = DiscreteSurvivalLoss(reduction="none")(z, torch.tensor([0, 1, 2, 3, 3]), torch.tensor([1, 1, 1, 1, 0]))
    assert_close((-nll).exp().sum().item(), 1.0)
    curve = survival_curve(z[:1])[0]
    assert_close(torch.cat([torch.ones(1, dtype=torch.float64), curve]).diff().neg(), (-nll[:4]).exp())
    assert (curve.diff() <= 0).all()


def outcomes(hazards):
    """Compute the probability of an event in each bin and, last, of none, bin by bin."""
    left, each = 1.0, []
    for h in hazards:
        each.append(left * h)
        left -= each[-1]
    return [*each, left]


some_hazards = st.lists(st.floats(0.05, 0.95), min_size=3, max_size=3)
some_censoring = st.lists(st.floats(0.05, 1), min_size=4, max_size=4)


@given(hazards=some_hazards)
def test_survival_loss_with_alpha_0_is_the_likelihood(hazards):
    """Enumerate all outcomes compatible with an observation: an event in the bin, later, or never."""
    p, z = outcomes(hazards), torch.tensor([hazards], dtype=torch.float64).logit()
    for t, e in itertools.product(range(3), (0, 1)):
        seen = sum(p[s] for s in range(4) if (s == t if e else s > t))
        nll = DiscreteSurvivalLoss()(z, torch.tensor([t]), torch.tensor([e]))
        assert_close((-nll).exp().item(), seen, rtol=1e-9, atol=1e-12)


@given(hazards=some_hazards, censoring=some_censoring, alpha=st.sampled_from([0.0, 0.4, 1.0]), seed=st.integers(0, 99))
def test_survival_loss_expectation_is_minimal_at_documented_hazards(hazards, censoring, alpha, seed):
    """Check the minimum, at the true hazards for alpha = 0; the loss is convex, so a zero gradient is a minimum."""
    p, c = outcomes(hazards), [share / sum(censoring) for share in censoring]  # censored in bin 0, 1, 2 or never
    seen = torch.zeros(3, 2, dtype=torch.float64)  # bin, event
    for (event, likely), (end, share) in itertools.product(enumerate(p), enumerate(c)):
        # a bag that survives the last bin is censored in it
        seen[min(event, end, 2), int(event <= end and event < 3)] += likely * share
    assert_close(seen.sum().item(), 1.0)

    later = seen.flip(0).cumsum(0).flip(0)
    events, after, censored = seen[:, 1], later[:, 1] - seen[:, 1], later[:, 0]
    best = events / (events + after + (1 - alpha) * censored)
    if alpha == 0:
        assert_close(best, torch.tensor(hazards, dtype=torch.float64))
    else:
        assert (best > torch.tensor(hazards)).all()

    # with alpha = 1 nothing survives the last bin, whose optimal hazard is 1; its logit must stay finite
    z = best.clamp(max=1 - 1e-12).logit().requires_grad_()
    times, happened = torch.arange(3).repeat_interleave(2), torch.tensor([0, 1]).repeat(3)

    def expected(logits):
        return (DiscreteSurvivalLoss(alpha, "none")(logits.expand(6, 3), times, happened) * seen.flatten()).sum()

    (gradient,) = torch.autograd.grad(expected(z), z)
    assert_close(gradient, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.manual_seed(seed)
    assert expected(z) < expected(z.detach() - torch.rand(3) - 0.01)


def test_survival_loss_ignores_later_bins():
    z = torch.randn(2, 5, requires_grad=True)
    t, e = torch.tensor([1, 3]), torch.tensor([1, 0])
    value = DiscreteSurvivalLoss()(z, t, e)
    value.backward()
    later = torch.arange(5) > t.unsqueeze(1)
    assert not z.grad[later].any()
    assert (z.grad[~later] != 0).all()
    assert DiscreteSurvivalLoss()(z.detach().masked_fill(later, 99.0), t, e) == value


def test_survival_loss_with_alpha_1_ignores_censored_bags():
    z = torch.randn(3, 4, requires_grad=True)
    DiscreteSurvivalLoss(alpha=1.0)(z, torch.tensor([3, 2, 1]), torch.tensor([0, 1, 0])).backward()
    assert z.grad.any(dim=1).tolist() == [False, True, False]


def test_survival_loss_is_exact_for_hazards_near_zero_and_one():
    z = torch.tensor([[-200.0, 200.0, 0.0]])
    loss = DiscreteSurvivalLoss(reduction="none")
    assert loss(z, torch.tensor([1]), torch.tensor([0])).item() == 200.0
    assert loss(z, torch.tensor([0]), torch.tensor([1])).item() == 200.0
    assert loss(z, torch.tensor([1]), torch.tensor([1])).item() == 0.0


def test_survival_loss_takes_time_and_event_as_one_label():
    z, t, e = torch.randn(4, 3), torch.tensor([0, 2, 1, 1]), torch.tensor([True, False, True, False])
    label = torch.stack([t.float(), e.float()], dim=1)
    assert_close(DiscreteSurvivalLoss()(z, label), DiscreteSurvivalLoss()(z, t, e), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("time", "event", "message"),
    [
        ([0, 3], [1, 1], "`time` must be whole numbers from 0 to 2, got 3.0"),
        ([0, -1], [1, 1], "`time` must be whole numbers from 0 to 2, got -1.0"),
        ([0, 1.5], [1, 1], "`time` must be whole numbers from 0 to 2, got 1.5"),
        ([0, 1], [1, 2], "`event` must be whole numbers from 0 to 1, got 2.0"),
        ([0, 1], [1, torch.nan], "`event` must be whole numbers from 0 to 1, got nan"),
        ([0, 1], [1], r"`event` must have shape \(B,\) = \(2,\), got \(1,\)"),
        ([0, 1], None, r"`time` must have shape \(B, 2\) if `event` is None, got \(2,\)"),
    ],
)
def test_survival_loss_rejects_bad_labels(time, event, message):
    with pytest.raises(ValueError, match=message):
        DiscreteSurvivalLoss()(torch.zeros(2, 3), torch.tensor(time), None if event is None else torch.tensor(event))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, torch.nan])
def test_survival_loss_rejects_bad_alpha(alpha):
    with pytest.raises(ValueError, match=rf"`alpha` must be in \[0, 1\], got {alpha}"):
        DiscreteSurvivalLoss(alpha)
