"""Tests that absorbed attention equals attention that projects every instance, and takes less memory."""

import weakref

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from monai_mil_ext.networks.blocks import AbsorbedAttention, PreNormQueryAttention, QueryAttention
from monai_mil_ext.networks.layers import masked_softmax
from tests.helpers import fill


def project(weight, bias, rows):
    """Map each row with each set of weights to (T, ..., E)."""
    return torch.stack([rows @ w.T + b for w, b in zip(weight, bias, strict=True)])


def unfolded(attend, queries, h):
    """Compute scores (B, N, H T) and outputs (B, T, E) with projected keys and values of all instances."""
    (b, n, e), t, heads = h.shape, len(queries), attend.num_heads
    sets = [attend.query_weight, attend.query_bias, attend.key_weight, attend.key_bias]
    sets += [attend.value_weight, attend.value_bias, attend.out_weight, attend.out_bias]
    wq, bq, wk, bk, wv, bv, wo, bo = (p.expand(t, *p.shape[1:]) for p in sets)
    q = torch.stack([w @ x + c for w, x, c in zip(wq, queries, bq, strict=True)])
    q = q.view(t, heads, 1, 1, -1)
    k, v = (project(w, c, h).view(t, b, n, heads, -1).permute(0, 3, 1, 2, 4) for w, c in ((wk, bk), (wv, bv)))
    scores = (q * k).sum(-1) / (e // heads) ** 0.5  # (T, H, B, N)
    read = (scores.softmax(-1).unsqueeze(-1) * v).sum(-2).permute(0, 2, 1, 3).reshape(t, b, e)
    read = torch.stack([r @ w.T + c for r, w, c in zip(read, wo, bo, strict=True)], 1)
    return scores.permute(2, 3, 1, 0).reshape(b, n, -1), read


def folded(attend, queries, h):
    scores = attend.score(queries, h)
    return scores, attend.read(scores.softmax(1), h)


def results(form, attend, queries, h):
    h = h.clone().requires_grad_()
    attend.zero_grad()
    scores, read = form(attend, queries, h)
    (scores.square().mean() + read.square().mean()).backward()
    return [scores.detach(), read.detach()], [h.grad, *(p.grad for p in attend.parameters())]


@pytest.mark.parametrize("num_sets", [1, 5])
@pytest.mark.parametrize(
    ("dtype", "output", "gradient"), [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-10, 1e-9)], ids=str
)
def test_absorbed_attention_equals_ordinary_attention(num_sets, dtype, output, gradient):
    attend = fill(AbsorbedAttention(16, num_heads=4, num_sets=num_sets)).to(dtype)
    queries, h = torch.randn(5, 16, dtype=dtype), torch.randn(3, 40, 16, dtype=dtype)
    (values, gradients), (expected, expected_gradients) = (
        results(form, attend, queries, h) for form in (folded, unfolded)
    )
    assert_close(values, expected, rtol=output, atol=output)
    for actual, other in zip(gradients, expected_gradients, strict=True):
        assert (actual - other).norm() <= gradient * other.norm() + 1e-7


class Peak(TorchDispatchMode):
    """Mode that measures the peak memory in bytes of the results of operations."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor.untyped_storage())
        return out

    def count(self, storage):
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.free, key, storage.nbytes())

    def free(self, key, size):
        self.known.discard(key)
        self.now -= size


def cost(form, attend, queries, h):
    with Peak() as peak:
        form(attend, queries, h)[1].square().sum().backward()
    return peak.most


@pytest.mark.parametrize("n", [2000, pytest.param(50_000, marks=pytest.mark.slow(buys="memory at 50,000 instances"))])
def test_absorbed_attention_takes_at_most_a_third_of_the_memory(n):
    attend, queries = AbsorbedAttention(128, num_heads=8, num_sets=16), torch.randn(16, 128)
    h = torch.randn(1, n, 128, requires_grad=True)
    memory = cost(folded, attend, queries, h)
    assert 8 * n * 128 < memory <= cost(unfolded, attend, queries, h) / 3


@pytest.mark.parametrize(
    "block", [QueryAttention(8, 2, num_queries=3, dropout=0.5), PreNormQueryAttention(8, 2, dropout=0.5)]
)
def test_query_attention_combines_score_and_read_and_ignores_padding(block):
    fill(block)
    queries, h, mask = torch.randn(3, 8), torch.randn(2, 6, 8), torch.arange(6) < torch.tensor([[6], [2]])
    out, keys = block(queries, h, mask), block.keys(h)
    assert_close(block.read(queries, masked_softmax(block.score(queries, keys), mask), keys), out)
    assert_close(block(queries, h[1:, :2]), out[1:])
    assert not torch.allclose(block.train()(queries, h, mask), out)


def test_query_attention_is_initialized_like_linear_layers():
    attend = AbsorbedAttention(64, 8, num_sets=4)
    for name, p in attend.named_parameters():
        assert p.abs().max() <= 1 / 8, name
        assert_close(p.std().item(), 1 / 8 / 3**0.5, rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 3), "`size` must be a multiple of the 3 heads, got 8"),
        ((8, 0), "`num_heads` must be a positive integer, got 0"),
        ((0, 1), "`size` must be a positive integer, got 0"),
        ((8, 2, 0), "`num_sets` must be a positive integer, got 0"),
    ],
)
def test_query_attention_rejects_bad_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        AbsorbedAttention(*sizes)


def test_query_attention_rejects_bad_number_of_queries():
    with pytest.raises(ValueError, match="`num_queries` must be a positive integer, got 0"):
        QueryAttention(8, 2, num_queries=0)
