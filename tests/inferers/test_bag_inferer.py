"""Tests that BagInferer gives the output of the network with less memory."""

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import SimpleInferer
from monai.networks.nets import MILModel
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL, BagOutputWrapper, EncodedBag, QGMILBlock
from tests.helpers import DEVICE, Rows, fill

MASK = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [True, False, True, False, False, False, True]])
SIZES = [{"chunk_size": 1}, {"chunk_size": 3}, {"chunk_size": 100}, {"chunk_bytes": 1}, {"chunk_bytes": 2000}]
AGGREGATORS = {
    "ABMIL": lambda: ABMIL(4, 2, hidden_size=3),
    "ASMIL": lambda: ASMIL(4, 2, hidden_size=4, num_tokens=3, num_heads=2),
    "QGMIL": lambda: QGMIL(4, 2, hidden_size=8, block=QGMILBlock(num_heads=2)),
}
every_aggregator = pytest.mark.parametrize("aggregator", AGGREGATORS.values(), ids=AGGREGATORS)


def images(b=3, n=7):
    return torch.rand(b, n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def image_net(aggregator=AGGREGATORS["ABMIL"], **options):
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return fill(EncodedBag(encoder, aggregator(), **options))


def sizes_seen(module):
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


@torch.no_grad()
@every_aggregator
@pytest.mark.parametrize("options", SIZES, ids=str)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
def test_bag_inferer_output_equals_that_of_the_network(aggregator, options, mask):
    net, x = image_net(aggregator), images()
    assert_close(BagInferer(**options)(x, net, mask), net(x, mask), rtol=1e-6, atol=1e-6)
    got, expected = BagInferer(**options)(x, BagOutputWrapper(net), mask), BagOutputWrapper(net)(x, mask)
    assert got.keys() == expected.keys() == {"logits", "attention", "scores", "embedding"}
    for name in got:
        assert_close(got[name], expected[name], rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@torch.no_grad()
def test_bag_inferer_is_bit_exact_for_encoder_without_sums():
    net, x = EncodedBag(nn.Flatten(), fill(ABMIL(64, 2))).eval(), images()
    for name, part in BagInferer(chunk_size=3)(x, BagOutputWrapper(net), MASK).items():
        assert torch.equal(part, BagOutputWrapper(net)(x, MASK)[name]), name


@torch.no_grad()
def test_bag_inferer_encodes_at_most_a_chunk_of_valid_instances():
    net = image_net()
    seen = sizes_seen(net.encoder)
    BagInferer(chunk_size=4)(images(), net)
    BagInferer(chunk_size=5)(images(), net, MASK)
    BagInferer(chunk_bytes=4 * 64 * 6)(images(), net)  # float32, 8 x 8
    BagInferer(chunk_size=3)(images(1, 7), net, torch.arange(7)[None] < 2)  # two chunks of padding
    BagInferer(chunk_size=11)(images(), BagOutputWrapper(net))  # a new wrapper is in training mode
    assert seen == [4, 4, 4, 4, 4, 1, 5, 5, 2, 1, 1, 6, 6, 6, 3, 2, 11, 10]


@torch.no_grad()
@pytest.mark.parametrize("mask", [None, torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 0, dtype=torch.bool)])
def test_bag_inferer_of_empty_bags(mask):
    net, x = image_net(), images(2, 0 if mask is None else mask.shape[1])
    got, expected = BagInferer(chunk_size=2)(x, BagOutputWrapper(net), mask), net.forward_bag(x, mask)
    assert_close(got["logits"], expected.logits)
    assert got["attention"].shape == expected.attention.shape
    assert got["logits"].isfinite().all()


@torch.no_grad()
def test_bag_inferer_reads_a_file_in_chunks(tmp_path):
    np.save(tmp_path / "bag.npy", images()[0].numpy().astype(np.float16))
    file = np.load(tmp_path / "bag.npy", mmap_mode="r")
    net, rows = image_net(), Rows(file)
    expected = net(torch.from_numpy(file.astype(np.float32))[None])
    assert_close(BagInferer(chunk_size=3)(rows, net), expected)
    assert rows.reads == [3, 3, 1]
    assert_close(BagInferer(chunk_size=3)(file, net), expected)


@torch.no_grad()
def test_bag_inferer_passes_whole_bag_to_network_with_attention_among_instances():
    net = fill(QGMIL(64, 2, hidden_size=8, block=QGMILBlock(num_heads=2))).eval()
    rows = Rows(images()[0].flatten(1).half())
    expected = net.forward_bag(rows.values.float()[None])
    got = BagInferer(chunk_size=3)(rows, BagOutputWrapper(net))
    assert_close(got, expected._asdict(), rtol=0, atol=0)
    assert max(rows.reads) == 3
    x = images().flatten(2)
    assert torch.equal(BagInferer()(x.double(), net, MASK), net(x, MASK))


@torch.no_grad()
def test_bag_inferer_halves_a_chunk_that_is_too_large():
    net, x = image_net(), images(1, 40)
    expected, done = net(x), []

    def need_memory(module, args):
        if len(args[0]) > 6:
            torch.empty(2**60, dtype=torch.uint8)  # the real error of the allocator
        done.append(len(args[0]))

    net.encoder.register_forward_pre_hook(need_memory)
    with pytest.warns(UserWarning, match="a chunk must fit into memory: continuing with"):
        assert_close(BagInferer(chunk_size=20)(x, net), expected)
    assert done == [5] * 8


@torch.no_grad()
@pytest.mark.parametrize("fits", [0, -1])
def test_bag_inferer_raises_errors_other_than_out_of_memory(fits):
    net = image_net()

    def fail(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory") if fits == 0 else RuntimeError("shapes differ")

    net.encoder.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="CUDA out of memory" if fits == 0 else "shapes differ"):
        BagInferer(chunk_size=1 if fits == 0 else 4)(images(), net)


def test_bag_inferer_gradients_are_those_of_the_network():
    net, other = image_net(chunk_size=2, recompute=True).train(), image_net().train()
    BagInferer(chunk_size=3)(images(), net, MASK).square().sum().backward()
    SimpleInferer()(images(), other, MASK).square().sum().backward()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert_close(p.grad, q.grad)


def test_bag_inferer_in_training_mode_uses_chunks_of_the_network():
    net = EncodedBag(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), ABMIL(64, 2)).train()
    with torch.no_grad():
        BagInferer(chunk_size=2)(images(), net)
    assert_close(net.encoder[1].running_mean, 0.1 * images().flatten(0, 1).flatten(1).mean(0))
    net.eval()
    x = images().requires_grad_()
    BagInferer(chunk_size=2)(x, net).sum().backward()
    assert x.grad.any()


@torch.no_grad()
def test_bag_inferer_autocast_equals_that_of_the_network():
    net, x = image_net(), images()
    with torch.autocast("cpu", torch.bfloat16):
        expected = net.forward_bag(x, MASK)
    got = BagInferer(chunk_size=3, amp_dtype=torch.bfloat16)(x, BagOutputWrapper(net), MASK)
    assert {part.dtype for part in got.values()} == {torch.float32}
    assert expected.logits.dtype == torch.bfloat16
    assert_close(got["scores"][MASK], expected.scores[MASK].float(), rtol=1e-2, atol=1e-2)
    assert_close(got["logits"], net(x, MASK), rtol=2e-2, atol=2e-2)
    assert not torch.equal(got["logits"], net(x, MASK))
    features, rows = fill(ABMIL(64, 2)), x.flatten(2)
    with torch.autocast("cpu", torch.bfloat16):
        rough = features(rows).float()
    half = BagInferer(amp_dtype=torch.bfloat16)(rows, features)
    assert_close(half, rough, rtol=0, atol=0)
    assert not torch.equal(half, features(rows))


@torch.no_grad()
def test_bag_inferer_of_wrapped_networks():
    net, x = image_net(), images()
    compiled = torch.compile(net, backend="eager")
    scripted = torch.jit.script(net)
    for wrapped in (compiled, scripted, nn.DataParallel(net), torch.compile(BagOutputWrapper(net), backend="eager")):
        got = BagInferer(chunk_size=3)(x, wrapped, MASK)
        assert_close(got["logits"] if isinstance(got, dict) else got, net(x, MASK), rtol=1e-6, atol=1e-6)
    features = fill(ABMIL(64, 2))
    assert_close(BagInferer()(x.flatten(2), torch.jit.script(features), MASK), features(x.flatten(2), MASK))


@torch.no_grad()
def test_bag_inferer_under_ddp():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        net, x = image_net(), images()
        seen = sizes_seen(net.encoder)
        got = BagInferer(chunk_size=11)(x, nn.parallel.DistributedDataParallel(net))
        assert seen == [11, 10]
        assert_close(got, net(x), rtol=1e-6, atol=1e-6)
    finally:
        torch.distributed.destroy_process_group()


@torch.no_grad()
def test_bag_inferer_of_mil_model_rejects_padding():
    net = MILModel(2, mil_mode="att", pretrained=False, backbone=nn.Flatten(2), backbone_num_features=64)
    net.net = nn.Flatten()
    net.eval()
    assert torch.equal(BagInferer()(images(), net), net(images()))
    assert torch.equal(BagInferer()(images(), net, torch.ones(3, 7, dtype=torch.bool)), net(images()))
    with pytest.raises(ValueError, match="`network` must take a mask for a padded batch, got MILModel"):
        BagInferer()(images(), net, MASK)


def test_bag_inferer_runs_in_a_monai_engine():
    net, x = image_net(), images()
    bags = [{"image": MetaTensor(x[i, : 3 + i])} for i in range(3)]
    results = []
    for inferer in (SimpleInferer(), BagInferer(chunk_size=2)):
        evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(bags, batch_size=2, collate_fn=BagCollate("image")),
            network=BagOutputWrapper(net),
            inferer=inferer,
            prepare_batch=lambda batch, *args, **kwargs: (batch["image"], None, (), {"mask": batch["mask"]}),
        )
        collect = from_engine("pred")
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e, f=collect: results.extend(f(e.state.output)))
        evaluator.run()
    assert len(results) == 6
    for result, expected in zip(results[:3], results[3:], strict=True):
        assert_close(result, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_bag_inferer_progress_counts_instances(capsys):
    BagInferer(chunk_size=3, progress=True)(images(1, 7), image_net())
    assert "7/7" in capsys.readouterr().err
    BagInferer(chunk_size=3)(images(1, 7), image_net())
    assert capsys.readouterr().err == ""


@torch.no_grad()
def test_bag_inferer_rejects_bad_input():
    net = image_net()
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(B, N, ...\), got \(7, 2\)"):
        BagInferer()(torch.rand(7, 2), net)
    with pytest.raises(ValueError, match=r"`inputs` must be a batch \(B, N, ...\) or rows of a bag, got object"):
        BagInferer()(object(), net)
    with pytest.raises(ValueError, match=r"`mask` must have shape \(B, N\) = \(3, 7\), got \(3, 5\)"):
        BagInferer()(images(), net, MASK[:, :5])
    with pytest.raises(ValueError, match="`chunk_size` must be a positive integer, got 0"):
        BagInferer(chunk_size=0)
    with pytest.raises(ValueError, match=r"`inputs` must give rows \(2, ...\) of a bag, got \(2,\)"):
        BagInferer(chunk_size=2)(np.zeros(4), net)


@torch.no_grad()
@pytest.mark.gpu
def test_bag_inferer_with_encoder_on_gpu_and_bag_on_cpu():
    net, x = image_net(), images()
    expected = net(x, MASK)
    net.encoder.to(DEVICE)
    assert_close(BagInferer(chunk_size=3)(x, net, MASK), expected, rtol=1e-5, atol=1e-5)
    net.aggregator.to(DEVICE)
    for device in ("cpu", DEVICE, None):
        got = BagInferer(chunk_size=3, device=device)(x, net, MASK)
        assert got.device.type == DEVICE
        assert_close(got.cpu(), expected, rtol=1e-5, atol=1e-5)
