"""Tests of the attention of QGMIL: class token, received attention, rollout, and their costs."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from monai_mil_ext.networks.blocks import gated_self_attention
from monai_mil_ext.networks.nets import QGMIL, QGMILBlock
from tests.networks.qgmil_cases import batch, plain_attention, reference, tiny

BLOCKS = [{}, {"num_heads": 4, "num_kv_heads": 2, "norm": "layer", "gate": "elementwise"}]
every_block = pytest.mark.parametrize("block", BLOCKS, ids=["base", "grouped"])
every_pooling = pytest.mark.parametrize("pooling", ["attention", "mean", "max", "cls"])


@pytest.mark.parametrize("chunk", [1, 40, 2**22], ids=["one-row", "some-rows", "whole"])
@every_pooling
@every_block
def test_qgmil_received_attention_is_the_column_mean(block, pooling, chunk, monkeypatch):
    monkeypatch.setattr(gated_self_attention, "CHUNK", chunk)
    net, (x, mask) = tiny(block, pooling=pooling, num_layers=3), batch()
    skip = int(pooling == "cls")  # the class token receives attention, but is no query
    for layer in (-1, 0, 1, 2, -3):
        received = net.received_attention(x, mask, layer=layer)
        assert not received[~mask].any()
        for i, real in enumerate(mask):
            p = reference(net, block, x[i, real])["layers"][layer].mean(0)
            assert_close(received[i, real], torch.tensor(p[skip:, skip:].mean(0)), rtol=1e-10, atol=1e-10)
        assert skip or torch.allclose(received.sum(1), torch.ones(3).double())
    assert_close(net.received_attention(x[:1]), net.received_attention(x[:1], mask[:1]))


@pytest.mark.parametrize("chunk", [1, 2**22], ids=["one-row", "whole"])
@every_pooling
@every_block
def test_qgmil_attention_rollout_is_the_product_of_dense_matrices(block, pooling, chunk, monkeypatch):
    monkeypatch.setattr(gated_self_attention, "CHUNK", chunk)
    net, (x, mask) = tiny(block, pooling=pooling, num_layers=3), batch()
    rollout = net.attention_rollout(x, mask)
    assert not rollout[~mask].any()
    for i, real in enumerate(mask):
        expected, a = reference(net, block, x[i, real]), torch.zeros(int(real.sum()) + 1, dtype=torch.float64)
        a[0] = 1
        if pooling != "cls":
            a = torch.tensor(expected["attention"][:, 0])
        for p in reversed(expected["layers"]):
            a = a @ torch.tensor(p.mean(0))
        assert_close(rollout[i, real], a[int(pooling == "cls") :], rtol=1e-10, atol=1e-10)
    assert pooling == "cls" or torch.allclose(rollout.sum(1), torch.ones(3).double())


@every_pooling
def test_qgmil_received_attention_of_an_empty_bag_is_zero(pooling):
    net, (x, mask) = tiny(pooling=pooling), batch()
    for given, real in ((x, mask & False), (x[:, :0], None)):
        assert not net.received_attention(given, real).any()
        rollout = net.attention_rollout(given, real)
        assert rollout.shape == given.shape[:2]
        assert not rollout.any()


def test_qgmil_received_attention_rejects_missing_layer():
    net = tiny(num_layers=2)
    for layer in (2, -3):
        with pytest.raises(ValueError, match=f"`layer` must be the index of one of 2 blocks, got {layer}"):
            net.received_attention(*batch(), layer=layer)


def test_qgmil_class_attention_is_computed_on_demand(monkeypatch):
    net, (x, mask), asked = tiny(pooling="cls", num_layers=2), batch(), []
    scored = gated_self_attention.attention_logits
    monkeypatch.setattr(
        "monai_mil_ext.networks.nets.transformers.qgmil.attention_logits", lambda *a: asked.append(1) or scored(*a)
    )
    logits = net(x, mask)
    assert asked == []
    assert_close(net.forward_bag(x, mask).logits, logits, rtol=0, atol=0)
    assert len(asked) == 1
    seen = []
    hook = net.score_tap.register_forward_hook(lambda *args: seen.append(args[-1]))
    assert_close(net(x, mask), logits, rtol=0, atol=0)
    hook.remove()
    assert_close(seen, [net.forward_bag(x, mask).scores], rtol=0, atol=0)
    net(x, mask)
    assert len(asked) == 3


def test_qgmil_class_attention_sums_to_one_with_the_token():
    net, (x, mask) = tiny(pooling="cls"), batch()
    out, token_weight = net.forward_bag(x, mask), reference(net, {}, batch()[0][0])["layers"][-1][:, 0, 0]
    assert_close(out.attention[0].sum(0), 1 - torch.tensor(token_weight), rtol=1e-10, atol=1e-10)
    assert (out.attention.sum(1) < 1).all()


class Largest(TorchDispatchMode):
    """Mode that records the largest result of any operation, including the backward pass."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.untyped_storage().nbytes() // t.element_size() for t in tree_leaves(out) if torch.is_tensor(t)]
        self.numel = max(self.numel, *sizes, 0)
        return out


@every_pooling
@every_block
def test_qgmil_stores_nothing_of_size_n_by_n(block, pooling, monkeypatch):
    monkeypatch.setattr(gated_self_attention, "CHUNK", 2**13)
    net = QGMIL(5, 2, hidden_size=8, num_layers=2, pooling=pooling, block=QGMILBlock(**{"num_heads": 2} | block))
    x, mask = torch.rand(1, 2000, 5, requires_grad=True), torch.arange(2000)[None] < 1900
    with Largest() as largest:
        out = net.forward_bag(x, mask)
        (out.logits.sum() + out.attention.square().sum()).backward()
        net.received_attention(x, mask)
        net.attention_rollout(x, mask)
    assert 2000 * 8 < largest.numel < 2000 * 2000 / 10


def multiplications(call, monkeypatch):
    """Count multiplications of matrices with plain attention, since the fused kernel of the CPU is not counted."""
    with monkeypatch.context() as patch, FlopCounterMode(display=False) as counter, torch.no_grad():
        patch.setattr(functional, "scaled_dot_product_attention", plain_attention)
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("num_layers", [1, 2])
@every_pooling
@every_block
def test_qgmil_received_attention_and_rollout_take_at_most_four_forwards(block, pooling, num_layers, monkeypatch):
    net = QGMIL(16, 2, hidden_size=32, num_layers=num_layers, pooling=pooling, block=QGMILBlock(**block)).eval()
    x, cost = torch.rand(1, 800, 16), {}
    for name in ("forward", "forward_bag", "received_attention", "attention_rollout"):
        cost[name] = multiplications(partial(getattr(net, name), x), monkeypatch)
    linear = pooling == "cls" and num_layers == 1  # only the forward pass, whose only query is the class token
    assert cost["forward_bag"] <= 1.1 * cost["forward"]
    assert cost["attention_rollout"] <= 2 * cost["forward"]
    assert (cost["received_attention"] <= 2 * cost["forward"]) is not linear


TRAIN = """
import torch
from tests.benchmarks.measure import resident
from monai_mil_ext.networks.nets import QGMIL
net = QGMIL.from_preset("qgmil", 1024, 1)
net(torch.randn(1, 100, 1024)).sum().backward()
before = resident("VmHWM")
net(torch.randn(1, 10_000, 1024)).sum().backward()
print(resident("VmHWM") - before)
"""


@pytest.mark.slow(buys="memory of training on 10,000 instances")
def test_qgmil_training_memory_on_ten_thousand_instances():
    run = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 3 * 8 * 10_000**2 * 4 / 5
