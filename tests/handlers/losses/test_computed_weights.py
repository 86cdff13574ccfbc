"""Tests of anchors of networks whose weights are computed from others: spectral norm, weight norm and pruning."""

import copy
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionAnchorHandler, EMATeacher
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, make_trainer
from tests.helpers import fill


def old_spectral_norm(net):
    nn.utils.spectral_norm(net.attend.score)


def old_weight_norm(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(net.attend.score)


def pruned(net):
    prune.l1_unstructured(net.attend.score, "weight", amount=0.3)


def pruned_twice(net):
    prune.l1_unstructured(net.attend.score, "weight", amount=0.3)
    prune.random_unstructured(net.attend.score, "weight", amount=0.2)
    prune.random_unstructured(net.attend.value, "bias", amount=0.5)


WAYS = {
    "spectral norm": lambda net: parametrizations.spectral_norm(net.attend.score),
    "weight norm": lambda net: parametrizations.weight_norm(net.attend.score),
    "old spectral norm": old_spectral_norm,
    "old weight norm": old_weight_norm,
    "pruned": pruned,
    "pruned twice": pruned_twice,
}
every_way = pytest.mark.parametrize("change", WAYS.values(), ids=WAYS)


def network(change):
    net = fill(ABMIL(F, CLASSES, hidden_size=8, attention_size=6)).train()
    torch.manual_seed(0)
    change(net)
    return net


def train_by_hand(net, steps=3):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for batch in bag_batches(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.train()(batch["image"], batch["mask"]), batch["label"]).backward()
        optimizer.step()


def scores(net, x, mask):
    with torch.no_grad():
        return net.eval().forward_bag(x, mask).scores


@every_way
@pytest.mark.parametrize("trained_first", [False, True])
def test_ema_teacher_with_momentum_zero_is_the_network(change, trained_first):
    net, batch = network(change), bag_batches(1, seed=5)[0]
    inputs = batch["image"].nan_to_num(), batch["mask"]
    if trained_first:  # then the computed weights are part of a graph
        train_by_hand(net)
    teacher = EMATeacher(net, "score_tap")
    assert_close(teacher.scores(*inputs), scores(net, *inputs), rtol=0, atol=0)
    for _ in range(2):
        train_by_hand(net)
        teacher.update(net, momentum=0.0)
        assert teacher.distance(net) == 0
        assert_close(teacher.scores(*inputs), scores(net, *inputs), rtol=0, atol=0)


@every_way
def test_ema_teacher_of_computed_weights_averages_what_they_are_computed_from(change):
    net, batch = network(change), bag_batches(1, seed=5)[0]
    inputs = batch["image"].nan_to_num(), batch["mask"]
    teacher, average = EMATeacher(net, "score_tap"), network(change)
    average.load_state_dict(net.state_dict())
    before = teacher.scores(*inputs)
    train_by_hand(net)
    teacher.update(net, momentum=0.5)
    state = {name: t.lerp(net.state_dict()[name], 0.5) for name, t in average.state_dict().items()}
    average.load_state_dict(state)
    assert_close(teacher.scores(*inputs), scores(average, *inputs))
    assert not torch.equal(teacher.scores(*inputs), before)


@every_way
def test_attention_anchor_trains_a_network_of_computed_weights(change):
    net, handler = network(change), AttentionAnchorHandler(NSFKLLoss(), beta=0.1, momentum=0.0)
    trainer = make_trainer(net, bag_batches(), handler, max_epochs=2)
    trainer.run()
    assert trainer.state.metrics["attention_anchor_distance"] == 0


class Doubles(nn.Module):
    """Linear layer whose weight is computed by a hook of the user's own."""

    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.ones(1, F))
        self.register_forward_pre_hook(lambda module, _args: setattr(module, "weight", 2 * module.raw))

    def forward(self, x):
        return x @ self.weight.t()


def test_ema_teacher_refuses_a_weight_computed_by_another_hook():
    net = nn.Sequential(Doubles())
    net(torch.ones(1, F))
    message = "`network` must not compute weights in its own hooks, which are not copied, got 'weight' of '0'"
    with pytest.raises(ValueError, match=message):
        EMATeacher(net, "0")


def test_ema_teacher_copies_a_network_that_keeps_its_last_output():
    class Remembers(nn.Linear):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    net, x = nn.Sequential(Remembers(F, 1)), torch.randn(2, F)
    expected = net(x)
    assert_close(EMATeacher(net, "0").scores(x), expected.detach())
    assert net[0].last is expected


def test_ema_teacher_names_a_network_that_cannot_be_copied():
    net = nn.Sequential(nn.Linear(F, 1))
    net.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"`network` must be one that copy.deepcopy can copy, got Sequential: .*lock"):
        EMATeacher(net, "0")


def test_ema_teacher_names_weights_of_another_network():
    net = network(lambda _: None)
    teacher = EMATeacher(net, "score_tap")
    for other, names in (
        (
            ABMIL(F, CLASSES, hidden_size=8, attention_size=7),
            "attend.gate.bias, attend.gate.weight, ",
        ),
        (copy.deepcopy(net), "attend.score.weight, attend.score.weight_mask, attend.score.weight_orig"),
    ):
        if "orig" in names:
            pruned(other)
        for call in (teacher.distance, lambda other: teacher.update(other, momentum=0.5)):
            with pytest.raises(ValueError, match=f"`network` must have the weights .*, got other {names}"):
                call(other)


@pytest.mark.parametrize("size", [4, 8])
def test_attention_anchor_refuses_a_second_network(size):
    """Also one of the same size, whose scores would be compared with those of the first."""
    handler = AttentionAnchorHandler(NSFKLLoss(), beta=0.1)
    first = network(lambda _: None)
    for _ in range(2):  # a second run of the same network continues
        make_trainer(first, bag_batches(1), handler).run()
    second = make_trainer(fill(ABMIL(F, CLASSES, hidden_size=size)), bag_batches(1), handler)
    with pytest.raises(ValueError, match="`engine` must train the network of the anchor, got another ABMIL"):
        second.run()
