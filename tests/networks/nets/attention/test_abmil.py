"""Tests of ABMIL beyond the laws of all networks, which are in tests/contracts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import TanhAttention
from monai_mil_ext.networks.nets import ABMIL
from tests.golden.reference_abmil import golden
from tests.helpers import fill

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "abmil.json").read_text())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
def test_abmil_has_golden_values(case, dtype, tolerance):
    x, sizes = torch.tensor(case["x"], dtype=dtype), torch.tensor(case["sizes"])
    mask = torch.arange(x.shape[1]) < sizes[:, None]
    out = fill(ABMIL(**case["config"]).to(dtype)).forward_bag(x, mask)
    for name in ("logits", "embedding"):
        assert_close(getattr(out, name), torch.tensor(case[name], dtype=dtype), rtol=tolerance, atol=tolerance)
    for name in ("scores", "attention"):
        for bag, real, rows in zip(getattr(out, name), mask, case[name], strict=True):
            expected = torch.tensor(rows, dtype=dtype).view_as(bag[real])
            assert_close(bag[real], expected, rtol=tolerance, atol=tolerance)
    assert not out.attention[~mask].any()


def test_golden_values_of_abmil_are_those_of_the_reference():
    now = golden()
    assert now.keys() == GOLDEN.keys()
    for name, case in GOLDEN.items():
        assert now[name]["config"] == case["config"]
        assert np.allclose(now[name]["logits"], case["logits"], rtol=1e-12, atol=1e-12)
        assert np.allclose(now[name]["x"], case["x"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"in_features": 768, "num_classes": 1, "gated": False}, 99_330),
        ({"in_features": 384, "num_classes": 2, "hidden_size": 128}, 82_563),
        ({"in_features": 1024, "num_classes": 2, "hidden_size": 512}, 656_771),
        # F E + 2 (E L + L) + (L + 1) C + (E + 1) C
        ({"in_features": 384, "num_classes": 5, "hidden_size": 128, "per_class": True}, 83_466),
    ],
    ids=["normal-guidance", "small", "large", "per-class"],
)
def test_abmil_has_the_published_number_of_parameters(config, count):
    assert sum(p.numel() for p in ABMIL(**config).parameters()) == count


def test_abmil_with_equal_scores_is_the_mean():
    net, x = ABMIL(4, 2, hidden_size=3).eval(), torch.randn(2, 6, 4)
    nn.init.zeros_(net.attend.score.weight)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    h = net.embed(x)
    assert_close(net.forward_bag(x, mask).embedding, torch.stack([h[0].mean(0), h[1, :2].mean(0)]))


def test_abmil_with_an_open_gate_scores_like_tanh_scores():
    net, x = ABMIL(4, 2, hidden_size=3), torch.randn(2, 6, 4)
    nn.init.zeros_(net.attend.gate.weight)
    nn.init.constant_(net.attend.gate.bias, 50.0)  # sigmoid(50) is 1 in float32
    plain = TanhAttention(3)
    plain.load_state_dict({k: v for k, v in net.attend.state_dict().items() if not k.startswith("gate")})
    assert_close(net.forward_bag(x).scores, plain(net.embed(x)))


def test_abmil_classifier_takes_concatenated_heads():
    net, x = ABMIL(4, 2, hidden_size=3, num_heads=2), torch.randn(2, 6, 4)
    out = net.forward_bag(x)
    heads = [(out.attention[..., k, None] * net.embed(x)).sum(1) for k in range(2)]
    assert_close(out.embedding, torch.cat(heads, 1))
    assert_close(out.logits, net.classify(out.embedding))


@given(seed=st.integers(0, 2**16), gated=st.booleans(), c=st.integers(0, 2))
def test_abmil_per_class_logit_ignores_scores_of_other_classes(seed, gated, c):
    torch.manual_seed(seed)
    net, x = ABMIL(4, 3, hidden_size=3, gated=gated, per_class=True).double(), torch.randn(2, 6, 4).double()
    out = net.forward_bag(x, torch.arange(6) < torch.tensor([[6], [2]]))
    (gradient,) = torch.autograd.grad(out.logits[:, c].sum(), out.scores)
    assert (gradient != 0).any(0).any(0).tolist() == [k == c for k in range(3)]
    hook = net.score_tap.register_forward_hook(lambda *args: args[-1].index_fill(2, torch.tensor(c), -9.0))
    same = (net(x, torch.arange(6) < torch.tensor([[6], [2]])) == out.logits).all(0)
    hook.remove()
    assert same.tolist() == [k != c for k in range(3)]


def test_abmil_per_class_with_one_class_has_one_head():
    per_class, plain = ABMIL(4, 1, hidden_size=3, per_class=True), ABMIL(4, 1, hidden_size=3)
    plain.load_state_dict(per_class.state_dict())
    x = torch.randn(2, 6, 4)
    assert_close(per_class.forward_bag(x), plain.forward_bag(x))


def test_abmil_rejects_num_heads_with_per_class():
    with pytest.raises(ValueError, match="`num_heads` must be 1 with `per_class`, got 2"):
        ABMIL(4, 3, num_heads=2, per_class=True)


@pytest.mark.parametrize("hidden_size", [None, 3])
def test_abmil_dropout_affects_scores_and_pooling(hidden_size):
    net, x, seen = ABMIL(4, 2, hidden_size=hidden_size, dropout=0.25), torch.rand(1, 400, 4) + 1, []
    net.attend.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for training in (True, False):
        out, clean = net.train(training).forward_bag(x), net.eval().embed(x)
        assert_close(out.embedding, (out.attention * seen[-1]).sum(1))
        dropped = (seen[-1] == 0)[clean > 0].float().mean()
        assert_close(dropped.item(), 0.25 if training else 0.0, rtol=0, atol=0.07 if training else 0)


def test_abmil_learns_the_relevant_instance():
    """Check that attention learns from bag labels which one of twelve instances makes a bag positive."""
    x, positive = torch.randn(200, 12, 4), torch.arange(200) % 2 == 0
    x[positive, 0, 0] += 6
    net = ABMIL(4, 1, hidden_size=8, attention_size=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], positive.float()).backward()
        optimizer.step()
    out = net.forward_bag(x)
    assert ((out.logits[:, 0] > 0) == positive).float().mean() > 0.95
    assert (out.attention[positive, :, 0].argmax(1) == 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ["in_features", "num_classes", "hidden_size", "attention_size", "num_heads"])
def test_abmil_rejects_sizes_that_are_not_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer, got 0"):
        ABMIL(**({"in_features": 4, "num_classes": 2} | {name: 0}))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_abmil_rejects_dropout_that_is_no_rate(rate):
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\), got"):
        ABMIL(4, 2, dropout=rate)
