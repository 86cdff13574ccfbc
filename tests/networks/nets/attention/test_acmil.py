"""Tests of ACMIL beyond the laws of all networks, which are in tests/contracts."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.losses import BranchDiversityLoss
from monai_mil_ext.networks.nets import ACMIL
from tests.golden import reference_acmil as reference
from tests.helpers import fill

X = np.cos(np.arange(3 * 7 * 6) * 0.37).reshape(3, 7, 6)
SIZES = [7, 1, 4]
PARAMS = reference.weights(reference.shapes(6, 2, 4, 3, 3))


def make(**options):
    return ACMIL(6, 2, hidden_size=4, attention_size=3, num_branches=3, **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
def test_acmil_matches_reference(dtype, tolerance):
    net, branches = fill(make().to(dtype)), []
    net.branch_tap.register_forward_hook(lambda *args: branches.append(args[-1]))
    mask = torch.arange(7) < torch.tensor(SIZES)[:, None]
    out = net.forward_bag(torch.tensor(X, dtype=dtype), mask)
    for i, n in enumerate(SIZES):
        got = out.logits[i], branches[0][i], out.embedding[i], out.scores[i, :n], out.attention[i, :n]
        for ours, theirs in zip(got, reference.acmil(X[i, :n], PARAMS, 3), strict=True):
            assert_close(ours, torch.tensor(theirs, dtype=dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("net", "count"),
    [(ACMIL(384, 2, hidden_size=128), 84_369), (ACMIL(1024, 2), 662_417)],
    ids=["small", "large"],
)
def test_acmil_has_the_published_number_of_parameters(net, count):
    assert sum(p.numel() for p in net.parameters()) == count


def test_acmil_loss_terms_match_manual_computation():
    """Compute the whole loss of a training step with four instances and two branches, one instance masked in each."""
    net = ACMIL(6, 2, hidden_size=4, attention_size=3, num_branches=2, num_instances=4, mask_rate=0.25).double()
    fill(net).train()
    seen = {}
    for name in ("branch_tap", "mask_top"):
        net.get_submodule(name).register_forward_hook(lambda *args, name=name: seen.update({name: args[-1]}))
    label = torch.tensor([1])
    out = net.forward_bag(torch.tensor(X[:1, :4]))
    hidden = [tuple(pair) for pair in seen["mask_top"][0].isinf().nonzero().tolist()]
    assert sorted(branch for _, branch in hidden) == [0, 1]

    params = reference.weights(reference.shapes(6, 2, 4, 3, 2))
    logits, branch_logits, _, _, attention = reference.acmil(X[0, :4], params, 2, hidden)
    branch = np.mean([reference.cross_entropy(logits, 1) for logits in branch_logits])
    expected = reference.cross_entropy(logits, 1) + branch + reference.diversity(attention)
    branches = seen["branch_tap"].flatten(0, 1)
    loss = cross_entropy(out.logits, label) + cross_entropy(branches, label.expand(2))
    loss = loss + BranchDiversityLoss()(seen["mask_top"].softmax(1))
    assert_close(loss.item(), expected, rtol=1e-12, atol=1e-12)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_acmil_training_attends_to_unmasked_instances():
    net = make(num_instances=4, mask_rate=0.5).train()
    out = net.forward_bag(torch.rand(2, 7, 6))
    assert ((out.attention == 0).sum(1) == 2).all()
    assert_close(out.attention.sum(1), torch.ones(2, 3))
    assert out.scores.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(mask_rate=1.5), r"`rate` must be in \[0, 1\], got 1.5"),
        (lambda: make(num_instances=0), "`num_instances` must be a positive integer, got 0"),
        (lambda: ACMIL(6, 2, num_branches=0), "`num_branches` must be a positive integer, got 0"),
    ],
)
def test_acmil_rejects_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
