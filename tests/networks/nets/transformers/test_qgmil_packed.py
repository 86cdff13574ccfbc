"""Tests that QGMIL on packed batches keeps all laws and equals QGMIL on padded batches."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from monai_mil_ext.networks.layers import packed
from monai_mil_ext.networks.nets import QGMIL
from monai_mil_ext.networks.nets.transformers import qgmil
from tests.contracts import laws
from tests.contracts.net_cases import CASES, MASK, F, X
from tests.helpers import bags, fill
from tests.networks.qgmil_cases import OTHERS, QGMILBlock

NAMES = ["QGMIL", "QGMIL-mean", "QGMIL-max"]
every_net = pytest.mark.parametrize("make", [CASES[name] for name in NAMES], ids=NAMES)
by_name = {"ids": lambda law: law.__name__}


@pytest.fixture
def always_packed(monkeypatch):
    """Pack even the smallest batch, and record the layouts."""
    layouts, packed_layout = [], qgmil.packed_layout
    monkeypatch.setattr(packed, "MIN_PADDING", 0)
    monkeypatch.setattr(qgmil, "packed_layout", lambda *args: layouts.append(packed_layout(*args)) or layouts[-1])
    return layouts


@pytest.mark.parametrize("law", laws.CHEAP, **by_name)
@every_net
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=bags(F, dtype=torch.float64))
def test_packed_qgmil_keeps_law(always_packed, law, make, batch):
    if laws.claimed(law, make):
        law(make, *batch)


@pytest.mark.parametrize(
    "law",
    [
        laws.autocast_is_close,
        pytest.param(
            laws.gradients_are_exact_in_float64, marks=pytest.mark.slow(buys="exact gradients of packed batches")
        ),
    ],
    **by_name,
)
def test_packed_qgmil_keeps_law_on_one_batch(always_packed, law):
    law(CASES["QGMIL"], X, MASK)


@pytest.mark.parametrize("block", OTHERS, ids=str)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_packed_qgmil_equals_padded_qgmil(always_packed, num_layers, block, monkeypatch):
    net = fill(QGMIL(F, 2, 8, num_layers, QGMILBlock(**{"num_heads": 2} | block), dropout=0.0).double())
    mask = torch.rand(3, 50) < torch.tensor([[0.9], [0.3], [0.0]])
    x = torch.randn(3, 50, F).double()
    out = net.forward_bag(x, mask)
    assert always_packed[0].sizes == mask.sum(1).tolist()[:2]
    monkeypatch.setattr(qgmil, "packed_layout", lambda *args: None)
    padded = net.forward_bag(x, mask)
    assert_close((out.logits, out.attention), (padded.logits, padded.attention), rtol=1e-9, atol=1e-12)
    assert_close(out.scores[mask], padded.scores[mask], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("max_rows", "parts"), [(1, 3), (40, 2), (4096, 1)])
@every_net
def test_packed_qgmil_in_parts_equals_padded_qgmil(always_packed, make, max_rows, parts, monkeypatch):
    monkeypatch.setattr(packed, "MAX_ROWS_CPU", max_rows)
    mask = torch.arange(30) < torch.tensor([[11], [0], [29], [30]])
    net, x = fill(make()).double().eval(), torch.randn(4, 30, F).double()
    out = net.forward_bag(x, mask)
    assert len(packed.split_packed(always_packed[0])) == parts
    monkeypatch.setattr(qgmil, "packed_layout", lambda *args: None)
    padded = net.forward_bag(x, mask)
    assert_close((out.logits, out.attention), (padded.logits, padded.attention), rtol=1e-9, atol=1e-12)


def test_packed_qgmil_is_close_in_float32():
    net = QGMIL(64, 2, dropout=0.0).eval()
    x, mask = torch.randn(3, 400, 64), torch.arange(400) < torch.tensor([[400], [90], [7]])
    single = torch.cat([net(x[i : i + 1, real]) for i, real in enumerate(mask)])
    assert_close(net(x, mask), single, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("sizes", "is_packed"), [((300, 20), True), ((300, 290), False)])
def test_qgmil_packs_if_there_is_much_padding(sizes, is_packed, monkeypatch):
    calls = []
    monkeypatch.setattr(qgmil, "pack", lambda x, layout: calls.append(1) or packed.pack(x, layout))
    make = partial(QGMIL, 6, 2, hidden_size=8, block=QGMILBlock(num_heads=2))
    x, mask = torch.randn(2, 300, 6), torch.arange(300) < torch.tensor(sizes)[:, None]
    make()(x, mask)
    assert bool(calls) is is_packed
    make(pooling="cls")(x, mask)  # never packed, because of its class token
    assert len(calls) == is_packed


@pytest.mark.parametrize("packing", [None, True, False])
def test_packing_is_an_option(packing, monkeypatch):
    net, mask = (
        fill(QGMIL(F, 2, 8, block=QGMILBlock(num_heads=2), packing=packing)).double().eval(),
        torch.ones(3, 50) > 0,
    )
    mask[1:, 9:] = False
    x = torch.randn(3, 50, F).double()
    layouts, packed_layout = [], qgmil.packed_layout
    monkeypatch.setattr(qgmil, "packed_layout", lambda *args: layouts.append(packed_layout(*args)) or layouts[-1])
    with torch.no_grad():
        whole = net(x, mask)
        alone = torch.cat([net(bag[real][None]) for bag, real in zip(x, mask, strict=True)])
    assert_close(whole, alone, rtol=1e-12, atol=1e-12)
    assert (layouts[0] is None) == (packing is False)


def test_a_batch_of_scans_without_packing_starts_few_kernels():
    mask = torch.arange(50) < torch.linspace(50, 5, 64).round()[:, None]
    net, counter = QGMIL(F, 2, hidden_size=64, packing=False).eval(), KernelCounter()
    with torch.no_grad(), counter:
        net(torch.rand(64, 50, F), mask)
    assert counter.number <= 200  # packed, 481: each bag has an attention of its own


class KernelCounter(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))
