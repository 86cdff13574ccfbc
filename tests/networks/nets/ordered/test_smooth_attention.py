"""Tests of SmAP and SmTP; the laws of all networks are in tests/contracts."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.layers import ChainSmoother
from monai_mil_ext.networks.nets import ABMIL, SmAP, SmTP
from tests.golden import reference_smooth as reference
from tests.golden import reference_transmil
from tests.helpers import fill

IMPULSE = torch.tensor([0.0, 0, 1, 0, 0], dtype=torch.float64).view(1, 5, 1)
SIZES = [6, 1, 2, 4]
X = np.cos(np.arange(4 * 6 * 5) * 0.37).reshape(4, 6, 5)
MASK = torch.arange(6) < torch.tensor(SIZES)[:, None]
RAW = 0.8  # not 0, since alpha = 1/2 would hide swapped weights
ALPHA = 1 / (1 + np.exp(-RAW))


@pytest.mark.parametrize("place", ["early", "mid", "late"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
def test_smap_matches_reference(place, dtype, tolerance):
    net = SmAP(5, 2, attention_size=3, place=place).to(dtype)
    smoother = (
        net.smooth_instances if place == "early" else getattr(net, f"smooth_{'hidden' if place == 'mid' else 'scores'}")
    )
    params = reference.weights([(1,), *reference.smap_shapes(5, 2, 3)])[1:]
    torch.nn.init.constant_(fill(net) and smoother.raw, RAW)
    out = net.forward_bag(torch.tensor(X, dtype=dtype), MASK)
    for i, n in enumerate(SIZES):
        got = out.logits[i], out.embedding[i], out.scores[i, :n], out.attention[i, :n]
        for ours, theirs in zip(got, reference.smap(X[i, :n], params, ALPHA, place), strict=True):
            assert_close(ours, torch.tensor(theirs, dtype=dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
def test_smtp_matches_reference(dtype, tolerance):
    net = fill(SmTP(5, 2, num_heads=1).to(dtype))
    for smoother, raw in ((net.smooth1, RAW), (net.smooth2, -0.5)):
        torch.nn.init.constant_(smoother.raw, raw)
    params = reference_transmil.weights(reference_transmil.sequence_shapes(5, 2))
    smooth = [partial(reference.smooth, alpha=1 / (1 + np.exp(-raw))) for raw in (RAW, -0.5)]
    out = net.forward_bag(torch.tensor(X, dtype=dtype), MASK)
    for i, n in enumerate(SIZES):
        got = out.logits[i], out.embedding[i], out.scores[i, :n], out.attention[i, :n]
        for ours, theirs in zip(got, reference_transmil.sequence(X[i, :n], params, 1, smooth), strict=True):
            assert_close(ours, torch.tensor(theirs, dtype=dtype), rtol=tolerance, atol=tolerance)


def test_smap_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in SmAP(768, 1).parameters()) == 99_331


def test_smap_late_without_smoothing_is_abmil():
    net, plain = SmAP(5, 2, place="late"), ABMIL(5, 2, gated=False)
    torch.nn.init.constant_(net.smooth_scores.raw, -50.0)
    plain.attend.load_state_dict(net.state_dict(), strict=False)
    plain.classify.load_state_dict(net.classify.state_dict())
    assert_close(net(torch.tensor(X).float(), MASK), plain(torch.tensor(X).float(), MASK))


def test_smap_takes_another_smoother():
    net = SmAP(5, 2, smoother=ChainSmoother(num_steps=1))
    assert net.smooth_instances(IMPULSE).flatten()[0].item() == 0


def test_smap_rejects_unknown_place():
    with pytest.raises(ValueError, match="`place` must be one of 'early', 'mid', 'late', got 'later'"):
        SmAP(5, 2, place="later")
