"""Tests of MarkovMIL beyond the laws of all networks, which are in tests/contracts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.nets import MarkovMIL
from tests.golden import reference_markov_mil as reference
from tests.helpers import fill

SIZES = [8, 1, 4]
X = np.cos(np.arange(3 * 8 * 5) * 0.37).reshape(3, 8, 5)
MASK = torch.arange(8) < torch.tensor(SIZES)[:, None]


def filled(**options):
    """Return a network of two classes with different runs in float64."""
    net = fill(MarkovMIL(5, 2, **options)).double()
    net.log_rate.data = torch.tensor([-1.0, 0.4], dtype=torch.float64)
    net.raw_stay.data = torch.tensor([0.8, -1.5], dtype=torch.float64)
    return net


def told(net):
    """Return the parameters of the network in the form of the reference."""
    height, rate, stay = net.raw_height.exp().log1p(), net.log_rate.exp(), net.raw_stay.sigmoid()
    given = net.evidence.weight, net.evidence.bias, height, rate, stay, net.bias
    return [p.detach().numpy() for p in given]


def test_markov_mil_is_the_sum_over_all_sets_of_runs():
    net = filled()
    out = net.forward_bag(torch.tensor(X).where(MASK[..., None], torch.nan), MASK)
    for i, n in enumerate(SIZES):
        logits, posterior = (torch.tensor(value) for value in reference.markov_mil(X[i, :n], *told(net)))
        assert_close(out.logits[i], logits, rtol=1e-10, atol=1e-10)
        assert_close(out.scores[i, :n].exp(), posterior * logits.sigmoid(), rtol=1e-10, atol=1e-10)
        assert_close(out.attention[i, :n], posterior / posterior.sum(0), rtol=1e-10, atol=1e-10)


def test_markov_mil_gradients_are_those_of_the_sum_over_all_sets_of_runs():
    net, step = filled(), 1e-5
    net(torch.tensor(X[:1])).sum().backward()
    for p in (net.evidence.weight, net.evidence.bias, net.raw_height, net.log_rate, net.raw_stay):
        expected = torch.zeros_like(p)
        for i in range(p.numel()):
            sums = []
            for sign in (step, -step):
                p.data.view(-1)[i] += sign
                sums.append(reference.markov_mil(X[0], *told(net))[0].sum())
                p.data.view(-1)[i] -= sign
            expected.view(-1)[i] = (sums[0] - sums[1]) / (2 * step)
        assert_close(p.grad, expected, rtol=1e-8, atol=1e-8)


def test_markov_mil_sees_two_runs_where_the_evidence_has_two():
    net = MarkovMIL(1, 1, run_length=4.0)
    net.evidence.weight.data.fill_(6.0)
    truth = torch.tensor([0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0], dtype=torch.float32)
    out = net.forward_bag((truth - 0.5).view(1, -1, 1))
    assert out.logits.item() > 10
    posterior = out.scores.exp().flatten()
    assert_close(posterior, truth, rtol=0, atol=0.2)


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_markov_mil_ignores_padding_between_instances(real):
    net, mask = filled(), torch.tensor([real])
    bag = torch.tensor(X).view(1, -1, 5)[:, : len(real)]
    apart = net.forward_bag(bag.where(mask[..., None], torch.nan), mask)
    together = net.forward_bag(bag[:, mask[0]])
    assert_close(apart.logits, together.logits)
    assert_close(apart.attention[mask], together.attention[0])


@pytest.mark.parametrize("evidence", ["linear", "gated"])
def test_markov_mil_untrained_has_the_bias_as_logit_for_bags_of_any_size(evidence):
    net = MarkovMIL(5, 1, evidence=evidence)
    assert_close(net(torch.rand(2, 30, 5), torch.arange(30) < torch.tensor([[1], [30]])), net.bias.expand(2, 1))


def test_markov_mil_takes_the_scores_of_gated_attention_for_evidence():
    net, linear = fill(MarkovMIL(5, 2, evidence="gated", attention_size=3)), fill(MarkovMIL(2, 2))
    for name in ("raw_height", "raw_stay", "log_rate", "bias"):
        getattr(linear, name).data = getattr(net, name).data
    linear.evidence.weight.data, linear.evidence.bias.data = torch.eye(2), torch.zeros(2)
    bag = torch.tensor(X).float()
    out = net.forward_bag(bag.where(MASK[..., None], torch.nan), MASK)
    expected = linear.forward_bag(net.evidence(bag), MASK)
    assert_close(out.logits, expected.logits)
    assert_close(out.attention, expected.attention)


def test_markov_mil_of_an_empty_bag_has_the_bias_as_logit():
    net = fill(MarkovMIL(5, 3))
    for bag, mask in ((torch.zeros(1, 0, 5), None), (torch.full((1, 4, 5), torch.nan), torch.zeros(1, 4) > 0)):
        assert_close(net(bag, mask)[0], net.bias)


def test_markov_mil_with_true_parameters_is_bayes_rule_for_drawn_chains():
    """Check by simulation: of the instances with a posterior near p, a share p is in a run."""
    rng, rate, stay, shift = np.random.default_rng(0), 0.1, 0.8, 1.5
    inside = np.zeros((4000, 20), dtype=int)
    for n in range(20):  # the chance to enter and to stay, given that all sets of the same runs weigh the same
        before = inside[:, n - 1] if n else np.zeros(4000, dtype=int)
        inside[:, n] = rng.random(4000) < np.where(before, stay, rate)
    inside = inside[inside.any(1)]
    x = torch.tensor(rng.normal(size=inside.shape) + shift * inside)[..., None]
    net = MarkovMIL(1, 1, run_length=1 / (1 - stay)).double()
    net.evidence.weight.data.fill_(shift)
    # a step outside of a run weighs 1 in the network and 1 - rate in the drawing, and the last run need not end
    net.evidence.bias.data.fill_(-(shift**2) / 2 - np.log(1 - rate))
    net.log_rate.data.fill_(np.log(rate / (1 - rate)))
    out = net.forward_bag(x)
    p = (out.scores.exp() / out.logits.sigmoid().unsqueeze(1)).detach().numpy()[:, 3:-6, 0]  # all bags have a run
    for low in (0.1, 0.3, 0.5, 0.7):
        near = (low < p) & (p < low + 0.2)
        assert abs(inside[:, 3:-6][near].mean() - p[near].mean()) < 0.03


def test_markov_mil_of_ten_thousand_instances_is_finite_at_any_size_of_the_evidence():
    net = fill(MarkovMIL(2, 1))
    bag = torch.randn(1, 10_000, 2, generator=torch.Generator().manual_seed(0))
    for size in (1.0, 1e3, 1e15):
        bag = (bag * size).requires_grad_()
        out = net.forward_bag(bag)
        out.logits.sum().backward()
        assert all(value.isfinite().all() for value in (out.logits, out.scores, out.attention, bag.grad))
        assert_close(out.attention.sum(1), torch.ones(1, 1))
        bag = bag.detach()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run_length": 1.0}, "`run_length` must be greater than 1, got 1.0"),
        ({"run_length": float("inf")}, "`run_length` must be positive and finite, got inf"),
        ({"run_rate": 0.0}, "`run_rate` must be positive and finite, got 0.0"),
        ({"evidence": "deep"}, "`evidence` must be one of 'linear', 'gated', got 'deep'"),
        ({"attention_size": 0, "evidence": "gated"}, "`attention_size` must be a positive integer, got 0"),
    ],
)
def test_markov_mil_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MarkovMIL(5, 2, **options)
