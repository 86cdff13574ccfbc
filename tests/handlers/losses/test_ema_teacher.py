"""Tests of EMATeacher: independence of the copy, bit-exact averages, and state."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.handlers import EMATeacher, ScoreHook
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import hook_count
from tests.helpers import fill


class Normed(nn.Module):
    """Network with parameters, floating-point buffers, an integer buffer and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.score = nn.Linear(4, 1)
        self.register_buffer("offset", torch.ones(1), persistent=False)

    def forward(self, x):
        return self.score(self.norm(x.mT).mT) + self.offset


def moved(net):
    """Change all tensors of the network and return it."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    net.train()(torch.randn(3, 5, 4))
    return net


def tensors(net):
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def test_ema_teacher_is_a_copy_without_gradients_dropout_or_hooks():
    net = fill(ABMIL(4, 2, hidden_size=8, dropout=0.5)).train()
    x, seen = torch.randn(2, 5, 4), []
    hook = ScoreHook(net, "score_tap")
    net.register_forward_hook(lambda *_: seen.append(1))
    teacher = EMATeacher(net, "score_tap")
    assert hook_count(teacher._net) == 1  # its own
    assert not any(p.requires_grad for p in teacher._net.parameters())
    assert not any(module.training for module in teacher._net.modules())
    state = torch.get_rng_state()
    scores = teacher.scores(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert (seen, hook.pop()) == ([], None)
    assert not scores.requires_grad
    assert net.training
    with torch.no_grad():
        net.attend.score.bias.add_(9)
    assert torch.equal(teacher.scores(x), scores)
    assert_close(net.eval().forward_bag(x).scores, scores + 9)


def test_ema_teacher_update_is_lerp_bit_for_bit():
    net = Normed()
    teacher = EMATeacher(net, "score")
    expected = {name: t.clone() for name, t in tensors(net).items()}
    for _ in range(5):
        moved(net)
        teacher.update(net, momentum=0.9)
        with torch.no_grad():
            for name, t in tensors(net).items():
                if t.is_floating_point():
                    expected[name] = torch.lerp(expected[name], t, 1 - 0.9)
                else:
                    expected[name] = t.clone()
    for name, t in tensors(teacher._net).items():
        assert torch.equal(t, expected[name]), name
    assert expected["norm.num_batches_tracked"] == 5
    assert_close(
        teacher.distance(net), torch.cat([(p - expected[n]).flatten() for n, p in net.named_parameters()]).norm()
    )


def test_ema_teacher_update_moves_by_a_fraction_of_the_distance():
    net = Normed()
    teacher = EMATeacher(net, "score")
    before, now = teacher._net.score.weight.clone(), moved(net).score.weight.detach()
    teacher.update(net, momentum=0.999)
    assert_close(teacher._net.score.weight - before, (1 - 0.999) * (now - before), rtol=0, atol=1e-7)
    teacher.update(net, momentum=0.0)
    for name, t in tensors(net).items():
        assert torch.equal(tensors(teacher._net)[name], t), name
    assert teacher.distance(net) == 0
    moved(net)
    before = {name: t.clone() for name, t in teacher.state_dict().items() if t.is_floating_point()}
    teacher.update(net, momentum=1.0)
    assert all(torch.equal(teacher.state_dict()[name], t) for name, t in before.items())


def test_ema_teacher_averages_16_bit_weights_in_float32():
    net = nn.Sequential(nn.Linear(4, 1)).bfloat16()
    teacher = EMATeacher(net, "0")
    start = net[0].weight.detach().float().clone()
    with torch.no_grad():
        net[0].weight.add_(1)
    for _ in range(100):
        teacher.update(net, momentum=0.999)
    fraction = 1 - 0.999**100
    average = teacher.state_dict()["0.weight"]
    assert average.dtype == torch.float32
    assert_close(average, start + fraction * (net[0].weight.float() - start), rtol=1e-4, atol=1e-5)
    assert torch.equal(teacher._net[0].weight, average.bfloat16())
    assert teacher.scores(torch.ones(1, 4).bfloat16()).dtype == torch.bfloat16


def test_ema_teacher_continues_from_a_loaded_state():
    net = Normed()
    teacher = EMATeacher(net, "score")
    teacher.update(moved(net), momentum=0.3)
    other = EMATeacher(Normed(), "score")
    other.load_state_dict(teacher.state_dict())
    x = torch.randn(1, 3, 4)
    assert torch.equal(other.scores(x), teacher.scores(x))
    moved(net)
    for copy in (teacher, other):
        copy.update(net, momentum=0.3)
    assert torch.equal(other.scores(x), teacher.scores(x))


def test_ema_teacher_refuses_the_state_of_another_network():
    teacher = EMATeacher(nn.Sequential(nn.Linear(2, 1)), "0")
    for other in ({"0.weight": torch.ones(1, 3), "0.bias": torch.ones(1)}, {"0.weight": torch.ones(1, 2)}):
        with pytest.raises(ValueError, match=r"`state` must be that of an anchor of the same network, got other 0\."):
            teacher.load_state_dict(other)


def test_ema_teacher_names_an_unknown_layer():
    with pytest.raises(ValueError, match="`layer` must be the path of a submodule of Normed, got 'scor'"):
        EMATeacher(Normed(), "scor")


def test_ema_teacher_follows_a_replaced_buffer_at_once_and_a_replaced_layer_when_it_looks_again():
    net = Normed()
    teacher = EMATeacher(net, "score")
    teacher.update(net, momentum=0.0)
    net.offset = torch.full((1,), 7.0)
    teacher.update(net, momentum=0.0)
    assert teacher.state_dict()["offset"] == 7
    net.score = nn.Linear(4, 1)
    teacher.look_up_again()
    teacher.update(net, momentum=0.0)
    assert torch.equal(teacher.state_dict()["score.weight"], net.score.weight)
    net.score = nn.Linear(4, 2)
    teacher.look_up_again()
    with pytest.raises(ValueError, match=r"`network` must have the weights of the one .*, got other score\.bias"):
        teacher.update(net, momentum=0.0)


def test_ema_teacher_updates_from_either_of_two_networks():
    nets = [moved(Normed()), moved(Normed())]
    teacher = EMATeacher(nets[0], "score")
    for net in (*nets, *nets):
        teacher.update(net, momentum=0.0)
        assert torch.equal(teacher.state_dict()["score.weight"], net.score.weight)
