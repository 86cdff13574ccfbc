"""Tests of DTFD-MIL beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.losses import BranchLoss
from monai_mil_ext.networks.nets import DTFDMIL, load_reference_state_dict
from tests.helpers import fill
from tests.networks.baseline_cases import DATA, TOLERANCE, expected, published_bags, published_weights, tapped

CHUNKS = DATA["cases"]["dtfd"]["chunks"]  # pseudo-bags of the published run
DEALT = [CHUNKS[place % 4][place // 4] for place in range(23)]  # order in which they are dealt in turn
LABEL = torch.tensor([1])
DISTILL = ("AFS", "MaxS", "MaxMinS", "MAS")


def published(distill):
    net = DTFDMIL(24, 2, hidden_size=16, num_instances=2, distill=distill, split="position").double()
    load_reference_state_dict(net, published_weights("dtfd"))
    return net.eval()


def in_published_order(values):
    """Return values (N, ...) of instances in the order of the case."""
    return torch.zeros_like(values).index_copy(0, torch.tensor(DEALT), values)


@pytest.mark.parametrize("distill", DISTILL[:3])
def test_dtfd_matches_the_published_code(distill):
    net, (x, mask) = published(distill), published_bags("dtfd")
    seen = tapped(net, "branch_tap", "instance_tap")
    out = net.forward_bag(x[:, DEALT], mask[:, DEALT])
    assert_close(out.logits[0], expected("dtfd", distill, "logits"), **TOLERANCE)
    assert_close(in_published_order(out.scores[0, :, 0]), expected("dtfd", "scores"), **TOLERANCE)
    assert_close(seen["branch_tap"][0], expected("dtfd", "tier1_logits"), **TOLERANCE)
    probabilities = in_published_order(seen["instance_tap"][0])
    assert_close(probabilities, expected("dtfd", "instance_probability"), **TOLERANCE)
    assert_close(cross_entropy(out.logits, LABEL), expected("dtfd", distill, "tier2_loss"), **TOLERANCE)
    tier1 = BranchLoss(cross_entropy)(seen["branch_tap"], LABEL)
    assert_close(tier1, expected("dtfd", "tier1_loss"), **TOLERANCE)
    assert_close(in_published_order(out.attention[0, :, 0]), expected_attention(distill), **TOLERANCE)


def expected_attention(distill):
    """Return the attention (N,) that follows from the weights and the instances of the published run."""
    rows, attention = expected("dtfd", distill, "tier2_attention"), torch.zeros(23, dtype=torch.float64)
    if distill == "AFS":
        for group, row in zip(CHUNKS, rows, strict=True):
            attention[group] = expected("dtfd", "tier1_attention")[group] * row
        return attention
    chosen = torch.tensor(DATA["cases"]["dtfd"]["selected"][distill]).flatten()
    return attention.index_add(0, chosen, rows)


def test_dtfd_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in DTFDMIL(1024, 2).parameters()) == 789_254
    small = DTFDMIL(24, 2, hidden_size=16)
    assert sum(p.numel() for p in small.parameters()) == DATA["cases"]["dtfd"]["parameter_count"]


def make(**options):
    return fill(DTFDMIL(6, 2, hidden_size=8, **{"num_groups": 3} | options)).double()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("split", ["score", "position"])
def test_sizes_of_pseudo_bags_differ_by_one_at_most(split, training):
    net = make(split=split).train(training)
    for n in range(10):
        members = net._deal(torch.randn(2, 12, 1), torch.arange(12).expand(2, -1) < n)
        sizes = members.sum(1)
        assert (members.sum(2) == (torch.arange(12) < n)).all()
        assert (sizes[:, : min(n, 3)].amax(1) - sizes[:, : min(n, 3)].amin(1) <= 1).all() if n else not sizes.any()
        assert not sizes[:, min(n, 3) :].any()


def test_split_is_random_in_training_alone_and_follows_the_seed():
    net, x = make(), torch.randn(1, 40, 6).double()
    assert torch.equal(net(x), net(x))
    torch.manual_seed(0)
    first, second = net.train()(x), net(x)
    assert not torch.allclose(first, second)
    torch.manual_seed(0)
    assert torch.equal(net(x), first)


def test_split_by_score_deals_by_descending_score():
    members = make()._deal(torch.tensor([[[0.1], [0.9], [0.5], [0.3]]]), torch.ones(1, 4, dtype=torch.bool))
    assert members[0].long().argmax(1).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("distill", DISTILL)
@pytest.mark.parametrize(("num_instances", "unique"), [(1, False), (2, False), (2, True)])
def test_terms_of_a_padded_batch_are_those_of_single_bags(distill, num_instances, unique):
    net, x = make(distill=distill, num_instances=num_instances, unique=unique), torch.randn(5, 9, 6).double()
    counts, label, seen = torch.tensor([9, 4, 1, 2, 6]), torch.tensor([0, 1, 1, 0, 1]), tapped(net, "branch_tap")
    mask = torch.arange(9) < counts[:, None]
    together = net.forward_bag(x.where(mask[..., None], torch.nan), mask)
    loss, alone = BranchLoss(cross_entropy)(seen["branch_tap"], label), []
    for i, n in enumerate(counts.tolist()):
        out = net.forward_bag(x[i : i + 1, :n])
        assert_close(out.logits[0], together.logits[i])
        assert_close(out.attention[0], together.attention[i, :n])
        assert_close(out.attention.sum(), torch.ones((), dtype=torch.float64))
        alone.append(BranchLoss(cross_entropy)(seen["branch_tap"], label[i : i + 1]))
    assert_close(loss, torch.stack(alone).mean())


def test_second_tier_trains_the_first_only_without_detach():
    trained = []
    for detach in (True, False):
        net = make(detach=detach).train()
        net(torch.randn(1, 9, 6).double()).square().sum().backward()
        trained.append({name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None})
    assert trained == [{"attend_distilled", "classify"}, {"embed", "attend", "attend_distilled", "classify"}]


def test_evaluation_with_detach_has_gradients_of_all_instances():
    """Saliency needs them, and nothing is trained."""
    x = torch.randn(1, 9, 6).double().requires_grad_()
    make(distill="AFS").eval()(x).square().sum().backward()
    assert (x.grad != 0).any(2).all()


def test_first_tier_trains_with_the_loss_of_its_branches():
    net = make().train()
    seen = tapped(net, "branch_tap")
    net(torch.randn(1, 2, 6).double())  # fewer instances than pseudo-bags
    assert seen["branch_tap"][0, 2].tolist() == [-torch.inf] * 2  # a pseudo-bag that does not exist has no term
    loss = BranchLoss(cross_entropy)(seen["branch_tap"], LABEL)
    assert_close(loss, cross_entropy(seen["branch_tap"][0, :2], LABEL.expand(2)))
    loss.backward()
    assert all(p.grad.isfinite().all() for m in (net.embed, net.attend, net.classify_group) for p in m.parameters())
    assert net.classify.weight.grad is None


@pytest.mark.parametrize("distill", DISTILL)
def test_training_with_detach_is_finite_for_an_empty_bag(distill):
    net, mask = make(distill=distill).train(), torch.tensor([[False] * 4, [True] * 4])
    out = net.forward_bag(torch.ones(2, 4, 6).double().where(mask[..., None], torch.nan), mask)
    out.logits.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert not out.attention[0].any()


def test_one_logit_is_ranked_as_it_is():
    net = fill(DTFDMIL(6, 1, hidden_size=8, distill="MaxS")).double()
    seen, x = tapped(net, "instance_tap"), torch.randn(1, 9, 6).double()
    net(x)
    evidence = torch.relu(net.embed(x)) @ net.classify_group.weight[0]
    assert_close(torch.sign(seen["instance_tap"][..., 0]), torch.sign(evidence))


@pytest.mark.parametrize("n", range(1, 14))
def test_small_pseudo_bags_give_instances_twice_unless_they_must_be_unique(n):
    chosen = {}
    for unique in (False, True):
        net = make(distill="MaxMinS", num_instances=2, unique=unique)
        values = torch.randn(1, 13, generator=torch.Generator().manual_seed(n)).double()
        mask = torch.arange(13)[None] < n
        members = net._deal(values[..., None], mask)
        indices, valid = net._choose(values, members)
        chosen[unique] = indices[valid].tolist()
        assert set(chosen[unique]) <= set(range(n))
        for group in members[0].T:
            rows = values[0][group].sort(descending=True)[0]
            wanted = [*rows[:2], *(rows[2:][-2:] if unique else rows[-2:])]
            got = [values[0, i] for i in indices[0].tolist() if i < 13 and group[i]]
            assert sorted(got) == sorted(wanted)
    assert len(set(chosen[True])) == len(chosen[True]) == len(set(chosen[False]))


@pytest.mark.parametrize(("name", "value"), [("distill", "max"), ("split", "random")])
def test_unknown_choice_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be one of"):
        DTFDMIL(4, 2, **{name: value})
