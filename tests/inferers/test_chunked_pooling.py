"""Tests that a softmax that runs over chunks gives the output of the network for the whole bag."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.inferers.chunked_pooling import pools_in_chunks
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL, BagEnsemble, BagOutputWrapper, EncodedBag
from tests.contracts.net_cases import CASES, MASK, F, X
from tests.helpers import DEVICE, Rows, fill

FITTING = {name: make for name, make in CASES.items() if pools_in_chunks(make().eval())}
every_fitting_net = pytest.mark.parametrize("make", FITTING.values(), ids=FITTING)
TIGHT = {"rtol": 1e-10, "atol": 1e-12}
N = X.shape[1]


def outputs(net, x, mask=None, **options):
    with torch.no_grad():
        return BagInferer(**options)(x, BagOutputWrapper(net), mask)


def compare(got, expected, mask=None, **tolerance):
    expected = {name: value for name, value in expected._asdict().items() if value is not None}
    assert got.keys() == expected.keys()
    for name, value in got.items():
        valid = mask if mask is not None and value.ndim == 3 else ...
        assert value.dtype == expected[name].dtype
        assert_close(value[valid], expected[name][valid], **tolerance, msg=lambda m, name=name: f"{name}: {m}")


def test_networks_that_pool_by_attention_fit():
    families = {name.partition("-")[0] for name in FITTING}
    around = {"CORAL", "SourceNet", "StandardizedNet", "BagEnsemble"}
    assert families == {"ABMIL", "ACMIL", "ASMIL", "CLAM", "MeanMIL"} | around
    assert "BagEnsemble" not in FITTING  # one of its members smooths instances


@torch.no_grad()
@every_fitting_net
@pytest.mark.parametrize("mask", [None, MASK, MASK & (torch.arange(2) > 0)[:, None]], ids=["all", "mask", "empty"])
def test_chunks_give_the_output_of_the_whole_bag(make, mask):
    net = fill(make()).double().eval()
    x = X if mask is None else X.where(mask[..., None], torch.nan)
    for chunk_size in (1, 2 * 2, N, 2 * N - 1, 2 * N + 1):  # of both bags together
        compare(outputs(net, x, mask, chunk_size=chunk_size), net.forward_bag(x, mask), mask, **TIGHT)


@torch.no_grad()
@every_fitting_net
@pytest.mark.parametrize("n", [1, 2, 7])
def test_chunks_of_one_bag_and_of_one_instance(make, n):
    net = fill(make()).double().eval()
    x = torch.randn(1, n, F, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    for chunk_size in (1, 7, n, n + 1):
        compare(outputs(net, x, chunk_size=chunk_size), net.forward_bag(x), **TIGHT)
        assert_close(BagInferer(chunk_size=chunk_size)(x, net), net(x), **TIGHT)


@torch.no_grad()
@pytest.mark.parametrize("factor", [1e4, -1e4])
def test_large_scores_do_not_overflow(factor):
    net = fill(ABMIL(F, 3, attention_size=5)).eval()
    net.attend.score.weight.fill_(factor / 5)
    x = torch.cat([torch.zeros(1, 4, F), torch.full((1, 3, F), 9.0), torch.zeros(1, 4, F)], 1)
    for bag in (x, x.flip(1)):
        expected = net.forward_bag(bag)
        assert expected.scores.abs().max() > 1e3
        compare(outputs(net, bag, chunk_size=2), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
@every_fitting_net
def test_chunks_in_bfloat16(make):
    net = fill(make()).eval()
    x = X.float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = net.forward_bag(x, MASK)
    got = outputs(net, x, MASK, chunk_size=4, amp_dtype=torch.bfloat16)
    assert {part.dtype for part in got.values()} == {torch.float32}
    assert_close(got["attention"].sum(1), torch.ones_like(got["attention"][:, 0]), rtol=0, atol=1e-6)
    for name, value in got.items():
        valid = MASK if value.ndim == 3 else ...
        assert_close(value[valid], getattr(expected, name)[valid].float(), rtol=2e-2, atol=1e-2)
    narrow = copy.deepcopy(net).bfloat16()
    assert_close(BagInferer(chunk_size=4)(x.bfloat16(), narrow, MASK), narrow(x.bfloat16(), MASK), rtol=2e-2, atol=2e-2)


@torch.no_grad()
def test_sums_over_many_chunks_are_exact():
    net = fill(ASMIL(F, 3, hidden_size=4, num_tokens=3, num_heads=2)).eval()
    x = torch.full((1, 20_000, F), 0.3)  # alike, as empty tiles are: sums in float32 would round to the same side
    x[:, ::100] = torch.randn(1, 200, F, generator=torch.Generator().manual_seed(0))
    got, wide = outputs(net, x, chunk_size=8), copy.deepcopy(net).double().forward_bag(x.double())
    assert_close(got["logits"].double(), wide.logits, rtol=1e-6, atol=1e-6)
    assert_close(got["attention"].double().sum().item(), 1.0, rtol=0, atol=1e-6)


@torch.no_grad()
def test_rows_of_a_file_are_never_whole(tmp_path):
    values = np.random.default_rng(0).normal(size=(9000, F)).astype(np.float16)
    np.save(tmp_path / "bag.npy", values)
    net, rows = fill(ABMIL(F, 2, hidden_size=4)).eval(), Rows(np.load(tmp_path / "bag.npy", mmap_mode="r"))
    expected, sizes = net.forward_bag(torch.from_numpy(values).float()[None]), []
    compare(outputs(net, rows), expected, rtol=1e-5, atol=1e-6)
    assert max(rows.reads) == 4096
    embed = net.embed.forward
    net.embed.forward = lambda x: (sizes.append(x.shape[1]), embed(x))[1]
    assert_close(BagInferer()(rows, net), expected.logits, rtol=1e-5, atol=1e-6)
    assert sizes == [4096, 4096, 808]


@torch.no_grad()
def test_features_of_an_encoder_are_pooled_in_chunks():
    encoder = fill(EncodedBag(nn.Flatten(), ABMIL(F, 2, hidden_size=4))).eval()
    sizes, attend = [], encoder.aggregator.attend.forward
    encoder.aggregator.attend.forward = lambda h: (sizes.append(h.shape[1]), attend(h))[1]
    got = outputs(encoder, X.float().unsqueeze(-1), MASK, chunk_bytes=4 * F * 4)  # of four instances
    assert sizes == [2, 2, 1]
    compare(got, encoder.forward_bag(X.float().unsqueeze(-1), MASK), MASK, rtol=1e-5, atol=1e-6)


class Shifted(ABMIL):
    """Network whose output is not that of its parts."""

    def forward_bag(self, x, mask=None):
        return super().forward_bag(x + 1, mask)


@torch.no_grad()
@pytest.mark.parametrize(
    "net",
    [
        Shifted(F, 2),
        BagEnsemble([ABMIL(F, 2), Shifted(F, 2)]),
        QGMIL(F, 2, hidden_size=8),
        ABMIL(F, 2, hidden_size=4, dropout=0.5).train(),
    ],
    ids=["own forward", "member", "attention among instances", "training"],
)
def test_networks_that_do_not_fit_get_the_whole_bag(net):
    if not isinstance(net, ABMIL) or type(net) is not ABMIL:
        net = net.eval()
    x = X.float()
    torch.manual_seed(0)
    expected = net(x, MASK)
    torch.manual_seed(0)
    assert torch.equal(BagInferer(chunk_size=3)(x, net, MASK), expected)


@torch.no_grad()
@pytest.mark.parametrize("place", ["score_tap", "", "wrapper"])
def test_hooks_see_the_whole_bag(place):
    net, seen = fill(ABMIL(F, 2)).eval(), []
    wrapped = BagOutputWrapper(net)
    part = wrapped if place == "wrapper" else net.get_submodule(place)
    part.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    call = wrapped if place == "wrapper" else net
    BagInferer(chunk_size=2)(X.float(), call)
    assert seen == [N]


@torch.no_grad()
def test_bad_input_in_chunks_is_named():
    net = ABMIL(F, 2).eval()
    with pytest.raises(ValueError, match=rf"`x` must have shape \(B, N, {F}\), got \(2, 1, {F + 1}\)"):
        BagInferer(chunk_size=2)(torch.zeros(2, 5, F + 1), net)


def test_gradients_need_the_whole_bag():
    net, x = fill(ABMIL(F, 2)).eval(), X.float().requires_grad_()
    BagInferer(chunk_size=2)(x, net).sum().backward()
    assert x.grad.any()


@torch.no_grad()
@pytest.mark.gpu
def test_chunks_on_a_gpu_give_the_output_of_the_whole_bag():
    net, x = fill(ASMIL(F, 2, hidden_size=4, num_heads=2)).eval(), X.float().repeat(1, 9, 1)
    expected = net.forward_bag(x)
    got = outputs(net.to(DEVICE), x, chunk_size=7)
    for name, value in got.items():
        assert_close(value.cpu(), getattr(expected, name), rtol=1e-4, atol=1e-5)
