"""Tests of ASMIL beyond the laws of all networks, which are in tests/contracts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ASMIL, load_reference_state_dict
from tests.golden.reference_asmil import golden
from tests.helpers import fill

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "asmil.json").read_text())
CASES = GOLDEN["nets"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_asmil_has_golden_values(case, dtype, tolerance):
    x, sizes = torch.tensor(case["x"], dtype=dtype), torch.tensor(case["sizes"])
    mask = torch.arange(x.shape[1]) < sizes[:, None]
    out = fill(ASMIL(**case["config"]).to(dtype)).forward_bag(x, mask)
    for name in ("logits", "embedding"):
        assert_close(getattr(out, name), torch.tensor(case[name], dtype=dtype), rtol=tolerance, atol=tolerance)
    for name in ("scores", "attention"):
        for bag, real, rows in zip(getattr(out, name), mask, case[name], strict=True):
            assert_close(bag[real], torch.tensor(rows, dtype=dtype), rtol=tolerance, atol=tolerance)
    assert not out.attention[~mask].any()


def test_golden_values_of_asmil_are_those_of_the_reference():
    now = golden()
    assert now["nets"].keys() == CASES.keys()
    for name, case in CASES.items():
        assert now["nets"][name]["config"] == case["config"]
        assert np.allclose(now["nets"][name]["logits"], case["logits"], rtol=1e-12, atol=1e-12)
        assert np.allclose(now["nets"][name]["x"], case["x"], rtol=1e-12, atol=1e-12)
    for case, other in zip(now["loss"]["cases"], GOLDEN["loss"]["cases"], strict=True):
        assert np.allclose(case["gradient"], other["gradient"], rtol=1e-12, atol=1e-12)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("f", "e", "t", "c", "published"),
    [(384, 128, 8, 3, 650_779), (384, 128, 16, None, 1_185_331), (1024, 512, 8, None, 10_008_603)],
)
def test_asmil_has_the_published_number_of_used_parameters(f, e, t, c, published):
    c = c or 3
    ours = f * e + (t + 1) * (4 * e**2 + 6 * e) + t * e + e + e * c + c
    net = ASMIL(f, c, num_tokens=t)
    assert count(net) == ours
    assert ours + 2 * e + t * (e * c + c) == published  # an unused layer norm, and an untrained head per token


def test_asmil_prenorm_shares_weights_among_tokens():
    f, e, c = 12, 8, 2
    for t in (1, 5):
        block = (4 * e**2 + 4 * e) + 4 * e + (8 * e**2 + 5 * e)
        assert count(ASMIL(f, c, hidden_size=e, num_tokens=t, num_heads=2, block="prenorm")) == (
            f * e + 2 * block + t * e + e + e * c + c
        )


@pytest.mark.parametrize(("f", "e"), [(384, 128), (512, 256), (768, 384), (1024, 512), (1536, 768)])
def test_asmil_default_hidden_size_is_as_published(f, e):
    assert ASMIL(f, 2, num_tokens=1).embed.weight.shape == (e, f)


def test_asmil_is_initialized_as_published():
    net = ASMIL(16, 2)
    assert not net.cls.any()
    assert 0 < net.tokens.std() < 1e-5
    net(torch.randn(1, 5, 16)).sum().backward()
    assert not net.summarize.attend.query_weight.grad.any()  # the class token is zero
    assert net.summarize.attend.query_bias.grad.any()


def kept(net, batches=200, batch=8):
    """Return the mask of kept tokens for each bag; dropped tokens have no gradient in the second stage."""
    counts, seen = [], []
    net.summarize.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    for _ in range(batches):
        net(torch.randn(batch, 3, net.in_features))
        counts.append(torch.full((batch,), len(net.tokens)) if seen[-1] is None else seen[-1].sum(1))
    return torch.cat(counts)


def small(**options):
    return ASMIL(4, 2, hidden_size=4, num_heads=2, **options)


def test_asmil_drops_tokens_at_the_rate_and_keeps_at_least_one():
    counts = kept(small(num_tokens=8, token_drop=0.5))
    assert counts.min() >= 1
    assert_close(counts.double().mean().item(), 4 + 8 * 0.5**8 / 8, rtol=0.02, atol=0)
    assert counts.unique().numel() > 4
    assert (kept(small(num_tokens=3, token_drop=0.999)) == 1).double().mean() > 0.95
    assert (kept(small(num_tokens=8, token_drop=0.0)) == 8).all()


@pytest.mark.parametrize("n_drop", [0, 1, 7])
def test_asmil_n_drop_drops_an_exact_number(n_drop):
    net = small(num_tokens=8, n_drop=n_drop)
    assert (kept(net, batches=5) == 8 - n_drop).all()


def test_asmil_drops_every_token_equally_often():
    net, seen = small(num_tokens=4, n_drop=3), []
    net.summarize.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    net(torch.randn(4000, 1, 4))
    assert_close(seen[0].double().mean(0), torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=0.03)


def test_asmil_dropped_token_has_zero_gradient():
    net = small(num_tokens=4, n_drop=3)
    seen = []
    net.summarize.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    net(torch.randn(1, 5, 4)).square().sum().backward()
    for name in ("query_weight", "key_weight", "value_weight", "value_bias", "out_weight", "out_bias"):
        gradient = getattr(net.attend.attend, name).grad
        assert not gradient[~seen[0][0]].any()
    assert net.attend.attend.out_weight.grad[seen[0][0]].any()
    assert net.tokens.grad is not None


@pytest.mark.parametrize("block", ["cross", "prenorm"])
def test_asmil_in_eval_uses_all_tokens_and_draws_nothing(block):
    net = fill(ASMIL(4, 2, hidden_size=4, num_heads=2, num_tokens=3, block=block, dropout=0.5))
    state = torch.get_rng_state()
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    before = net(x)
    assert torch.equal(torch.get_rng_state(), state)
    for i in range(3):
        with torch.no_grad():
            net.tokens[i, 0] += 1.0
        after = net(x)
        assert not torch.allclose(after, before)
        before = after


def test_asmil_learns_the_relevant_instance():
    """Check that attention learns from bag labels which one of twelve instances makes a bag positive."""
    x, positive = torch.randn(200, 12, 4), torch.arange(200) % 2 == 0
    x[positive, 0, 0] += 6
    net = ASMIL(4, 1, hidden_size=8, num_heads=2, num_tokens=4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], positive.float()).backward()
        optimizer.step()
    out = net.eval().forward_bag(x)
    assert ((out.logits[:, 0] > 0) == positive).float().mean() > 0.95
    assert (out.attention[positive, :, 0].argmax(1) == 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ["in_features", "num_classes", "hidden_size", "num_tokens", "num_heads"])
def test_asmil_rejects_sizes_that_are_not_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer, got 0"):
        ASMIL(**({"in_features": 16, "num_classes": 2, "hidden_size": 8} | {name: 0}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_drop": 8}, "`n_drop` must leave at least one of 8 tokens, got 8"),
        ({"n_drop": -1}, "`n_drop` must be an integer from 0, got -1"),
        ({"token_drop": 1.0}, r"`token_drop` must be in \[0, 1\), got 1.0"),
        ({"dropout": float("nan")}, r"`dropout` must be in \[0, 1\), got nan"),
        ({"hidden_size": 12}, "`hidden_size` must be a multiple of the 8 heads, got 12"),
        ({"block": "post"}, "`block` must be one of 'cross', 'prenorm', got 'post'"),
    ],
)
def test_asmil_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ASMIL(**({"in_features": 16, "num_classes": 2} | options))


def published(t=3, e=4, f=5, c=2, seed=1):
    """Create a checkpoint with the names and shapes of the authors."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"q": (1, t, e), "cls": (1, 1, e), "dimreduction.fc1.weight": (e, f)}
    shapes |= {f"dimreduction.bn.{kind}": (e,) for kind in ("weight", "bias")}
    for group in [*(f"sub_attention.{i}" for i in range(t)), "bag_attention"]:
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{group}.{part}.weight": (e, e), f"{group}.{part}.bias": (e,)}
        shapes |= {f"{group}.layer_norm.{kind}": (e,) for kind in ("weight", "bias")}
    for head in [*(f"classifier.{i}.fc" for i in range(t)), "Slide_classifier.fc"]:
        shapes |= {f"{head}.weight": (c, e), f"{head}.bias": (c,)}
    return {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}


def ordinary(weights, group, query, h, heads=2):
    """Apply multi-head attention of PyTorch with the published weights of one group, and its layer norm."""
    attend = nn.MultiheadAttention(h.shape[-1], heads, batch_first=True).double()
    parts = [weights[f"{group}.{p}.weight"] for p in ("q_proj", "k_proj", "v_proj")]
    biases = [weights[f"{group}.{p}.bias"] for p in ("q_proj", "k_proj", "v_proj")]
    attend.load_state_dict(
        {
            "in_proj_weight": torch.cat(parts),
            "in_proj_bias": torch.cat(biases),
            "out_proj.weight": weights[f"{group}.out_proj.weight"],
            "out_proj.bias": weights[f"{group}.out_proj.bias"],
        }
    )
    read, attention = attend(query.expand(len(h), -1, -1), h, h)
    norm = weights[f"{group}.layer_norm.weight"], weights[f"{group}.layer_norm.bias"]
    return nn.functional.layer_norm(read, read.shape[-1:], *norm, eps=1e-6), attention


@pytest.mark.parametrize("under_model", [False, True])
def test_asmil_with_published_checkpoint_matches_ordinary_attention(under_model):
    weights, x = published(), torch.randn(2, 6, 5, dtype=torch.float64)
    net = ASMIL(5, 2, hidden_size=4, num_tokens=3, num_heads=2).double().eval()
    load_reference_state_dict(net, {"model": weights, "epoch": 3} if under_model else weights)
    h = (x @ weights["dimreduction.fc1.weight"].T).relu()
    read = [ordinary(weights, f"sub_attention.{i}", weights["q"][:, i : i + 1], h) for i in range(3)]
    cls, _ = ordinary(weights, "bag_attention", weights["cls"], torch.cat([f for f, _ in read], 1))
    logits = cls[:, 0] @ weights["Slide_classifier.fc.weight"].T + weights["Slide_classifier.fc.bias"]
    out = net.forward_bag(x)
    assert_close(out.logits, logits)
    assert_close(out.attention, torch.stack([a for _, a in read]).mean((0, 2)).unsqueeze(-1))


def test_asmil_published_model_has_the_reported_size():
    assert sum(t.numel() for t in published(8, 128, 384, 3).values()) == 650_779


def test_asmil_rejects_checkpoint_with_other_number_of_tokens():
    net = ASMIL(5, 2, hidden_size=4, num_tokens=3, num_heads=2)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"unexpected: sub_attention.3.*\n.*shape: q \(1, 4, 4\) for \(1, 3, 4\)"):
        load_reference_state_dict(net, published(t=4))
    assert_close(net.state_dict(), before, rtol=0, atol=0)
    with pytest.raises(ValueError, match='`block` must be "cross" for published weights'):
        load_reference_state_dict(ASMIL(5, 2, hidden_size=4, num_heads=2, block="prenorm"), published())
