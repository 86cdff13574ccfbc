"""Tests of AttentionPriorHandler with positions in mm: values by hand, invariances, resuming, two processes."""

import copy

import pytest
import torch
from monai.data import MetaTensor
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate
from monai_mil_ext.handlers import AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, gradients, make_trainer
from tests.helpers import fill

WEIGHT = 0.7


def network():
    return fill(ABMIL(F, CLASSES, hidden_size=8))


def batches(change=lambda j: j, count=2, **options):
    """Return batches whose positions are a function of the slice number, with NaN at padding."""
    data = bag_batches(count, **options)
    for batch in data:
        number = torch.arange(1.0, batch["mask"].shape[1] + 1).expand(batch["mask"].shape)
        batch["position"] = change(number).masked_fill(~batch["mask"], torch.nan)
    return data


def prior(**options):
    return AttentionPriorHandler(NormalGuidanceLoss(), weight=WEIGHT, positions_key="position", **options)


def train(data, handler, net=None):
    """Return the weights after a run, and the term."""
    net = network() if net is None else net
    trainer = make_trainer(net, data, handler)
    trainer.run()
    return net.state_dict(), trainer.state.metrics["attention_prior"]


def test_attention_prior_with_positions_by_hand():
    """Compute the equations of the method, bag by bag with the positions of each."""
    (batch,) = batches(lambda j: j**1.7, count=1)
    net, same = network(), network().train()
    _, term = train([batch], prior(), net)
    output = same.forward_bag(batch["image"], batch["mask"])
    terms = []
    for attention, mask, position in zip(output.attention, batch["mask"], batch["position"], strict=True):
        a, p = attention[mask, 0], position[mask]
        with torch.no_grad():
            mean = (a * p).sum()
            variance = (a * (p - mean) ** 2).sum()
            r = torch.softmax(-((p - mean) ** 2) / (2 * variance), 0)
        terms.append((r * (r.log() - a.log())).sum())
    by_hand = torch.stack(terms).mean()
    (cross_entropy(output.logits, batch["label"]) + WEIGHT * by_hand).backward()
    assert_close(term, by_hand.item())
    assert_close(gradients(net), gradients(same))


def test_attention_prior_with_even_positions_equals_slice_numbers():
    plain = train(batches(), AttentionPriorHandler(NormalGuidanceLoss(), weight=WEIGHT))
    for change in (lambda j: j, lambda j: 2.5 * j - 917.3, lambda j: 40 - 5.0 * j):
        assert_close(train(batches(change), prior()), plain, rtol=1e-4, atol=1e-5)
    uneven = train(batches(lambda j: j + 3.0 * (j > 2)), prior())
    assert abs(uneven[1] - plain[1]) > 1e-3


def test_attention_prior_passes_collated_positions():
    bags = [{"image": torch.randn(n, F), "position": MetaTensor(torch.arange(n) * 2.5), "label": n % 2} for n in (3, 5)]
    seen = []

    def loss(attention, mask, positions):
        seen.append((type(positions), positions, mask))
        return NormalGuidanceLoss()(attention, mask, positions)

    for metatensor in (False, True):
        batch = BagCollate(["image", "position"])(bags)
        batch["position"] = MetaTensor(batch["position"]) if metatensor else batch["position"]
        train([batch], AttentionPriorHandler(loss, positions_key="position"))
    for kind, positions, mask in seen:
        assert kind is torch.Tensor
        assert positions[mask].tolist() == [0, 2.5, 5, 0, 2.5, 5, 7.5, 10]


def test_attention_prior_names_a_batch_without_positions():
    with pytest.raises(
        ValueError, match=r"`positions_key` must be an item of the batch \(image, mask, label\), got 'mm'"
    ):
        train(bag_batches(1), AttentionPriorHandler(NormalGuidanceLoss(), positions_key="mm"))
    wrong = bag_batches(1)[0] | {"position": torch.ones(3, 2)}
    with pytest.raises(ValueError, match=r"`positions` must have shape \(B, N\) = \(3, 7\), got \(3, 2\)"):
        train([wrong], prior())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e19])
@pytest.mark.parametrize("loss", [NormalGuidanceLoss(), lambda attention, mask, positions: attention.square().sum()])
def test_attention_prior_refuses_a_position_that_is_not_finite(bad, loss):
    """Any loss with positions: the weights are those before the step."""
    data, net = batches(count=2), network()
    data[1]["position"][1, 3] = bad
    handler = AttentionPriorHandler(loss, weight=WEIGHT, positions_key="position")
    first = network()
    train(data[:1], AttentionPriorHandler(loss, weight=WEIGHT, positions_key="position"), first)
    with pytest.raises(ValueError, match=r"`positions` must be finite .*, got .* at instance 3 of bag 1"):
        train(data, handler, net)
    assert_close(net.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_attention_prior_checks_positions_without_the_device_of_the_mask():
    """The mask, on the device of the network, is read only if a position is not finite."""
    handler = AttentionPriorHandler(lambda attention, mask, positions: attention.sum(), positions_key="position")
    handler._extra = {"positions": torch.arange(5.0).expand(2, 5)}
    handler.values(torch.zeros(2, 5, 1, device="meta"), torch.ones(2, 5, device="meta").bool())


def test_attention_prior_with_weight_zero_needs_no_positions():
    handler = AttentionPriorHandler(NormalGuidanceLoss(), weight=0, positions_key="mm")
    make_trainer(network(), bag_batches(1), handler).run()


def test_attention_prior_state_is_the_weight():
    handler = prior()
    net = network()
    make_trainer(net, batches(), handler).run()
    assert handler.state_dict() == {"weight": WEIGHT}
    again = copy.deepcopy(net)
    other = AttentionPriorHandler(NormalGuidanceLoss(), weight=0, positions_key="position")
    other.load_state_dict(handler.state_dict())
    more = batches(lambda j: j**2)
    assert_close(train(more, handler, net), train(more, other, again), rtol=0, atol=0)


PARTS = [{"sizes": (7, 4), "seed": 1}, {"sizes": (3, 9, 5), "seed": 2}]


def train_one(rank, folder):
    """Train one step in a process."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = network()
    trainer = make_trainer(DistributedDataParallel(net), batches(lambda j: j**2, 1, **PARTS[rank]), prior())
    trainer.run()
    result = {"gradients": gradients(net), "term": trainer.state.metrics["attention_prior"]}
    torch.save(result, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_attention_prior_uses_positions_of_each_process(tmp_path):
    torch.multiprocessing.start_processes(train_one, (str(tmp_path),), nprocs=2, start_method="forkserver")
    net = network().train()
    losses, terms = [], []
    for part in PARTS:
        (batch,) = batches(lambda j: j**2, 1, **part)
        output = net.forward_bag(batch["image"], batch["mask"])
        terms.append(NormalGuidanceLoss()(output.attention, batch["mask"], batch["position"]))
        losses.append(cross_entropy(output.logits, batch["label"]) + WEIGHT * terms[-1])
    torch.stack(losses).mean().backward()
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_close(result["gradients"], gradients(net))
        assert_close(result["term"], torch.stack(terms).mean().item())
