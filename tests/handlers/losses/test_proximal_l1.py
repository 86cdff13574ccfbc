"""Tests of ProximalL1Handler with real optimizers."""

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.handlers import ProximalL1Handler
from tests.handlers.training import make_trainer
from tests.helpers import fill

BATCHES = [{"image": torch.full((1, 3), 2.0), "label": torch.tensor([1])}] * 3


class Frozen(nn.Module):
    """Network without gradient, so that only the handler changes its weights."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, -1.0, 0.05, 0.0]))
        self.b = nn.Parameter(torch.tensor([-2.0]))

    def forward(self, x):
        return torch.zeros(len(x), 2) * (self.a.sum() + self.b)


@pytest.mark.parametrize(
    ("names", "a", "b"),
    [(["a"], [0.7, -0.7, 0, 0], -2), (["b"], [1, -1, 0.05, 0], -1.7), (None, [0.7, -0.7, 0, 0], -1.7)],
    ids=["one", "other", "all"],
)
def test_proximal_l1_shrinks_weights_by_rate_times_penalty(names, a, b):
    net = Frozen()
    make_trainer(net, BATCHES, ProximalL1Handler(1.0, names), lr=0.1).run()
    assert_close(net.a.detach(), torch.tensor(a, dtype=torch.float))
    assert_close(net.b.detach(), torch.tensor([b], dtype=torch.float))


def test_proximal_l1_uses_the_current_rate_of_the_parameter_group():
    net = Frozen()
    trainer = make_trainer(net, BATCHES, ProximalL1Handler(1.0))
    trainer.optimizer = torch.optim.SGD([{"params": [net.a], "lr": 0.1}, {"params": [net.b], "lr": 0.5}])
    schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizer, step_size=1, gamma=0.5)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: schedule.step())
    trainer.run()
    assert_close(net.a.detach(), torch.tensor([1 - 0.175, -1 + 0.175, 0, 0]))
    assert_close(net.b.detach(), torch.tensor([-2 + 0.875]))


def test_proximal_l1_solves_the_lasso_of_orthogonal_features():
    """The minimum of |w - t|^2 / 2 + |w| is t moved by 1 towards zero, and exactly zero if |t| < 1."""
    net, target = nn.Linear(4, 1, bias=False), torch.tensor([[3.0, -2.0, 0.9, -0.1]])
    batch = {"image": torch.eye(4), "label": target.T}
    trainer = make_trainer(net, [batch] * 200, ProximalL1Handler(1.0), lr=0.1)
    trainer.loss_function = lambda y, t: (y - t).square().sum() / 2
    trainer.run()
    assert_close(net.weight.detach(), torch.tensor([[2.0, -1.0, 0.0, 0.0]]))
    assert net.weight[0, 2:].tolist() == [0, 0]


class Fused(torch.optim.SGD):
    """Optimizer like fused ones: a gradient scaler always calls the step, which skips itself on overflow."""

    found_inf = None

    def step(self, closure=None):
        pass


@pytest.mark.parametrize(("overflow", "expected"), [(0.0, -1.7), (1.0, -2.0)])
def test_proximal_l1_ignores_skipped_steps(overflow, expected):
    net = Frozen()
    trainer = make_trainer(net, BATCHES, ProximalL1Handler(1.0))
    trainer.optimizer = Fused(net.parameters(), lr=0.1)
    trainer.optimizer.found_inf = torch.tensor(overflow)
    trainer.run()
    assert_close(net.b.detach(), torch.tensor([expected]))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_proximal_l1_removes_its_hook(weight):
    net = Frozen()
    trainer = make_trainer(net, BATCHES, ProximalL1Handler(weight), lr=0.1)
    trainer.run()
    after = net.b.item()
    assert (after == -2) == (weight == 0)
    trainer.optimizer.step()
    assert net.b.item() == after


def test_proximal_l1_names_invalid_options():
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"`weight` must be finite and not negative, got {weight}"):
            ProximalL1Handler(weight)
    with pytest.raises(ValueError, match="`parameters` must be one of 'a', 'b', got 'c'"):
        make_trainer(Frozen(), BATCHES, ProximalL1Handler(1.0, ["c"])).run()
    net = fill(Frozen())
    trainer = make_trainer(net, BATCHES, ProximalL1Handler(1.0, ["b"]))
    trainer.optimizer = torch.optim.SGD([net.a], lr=0.1)
    with pytest.raises(ValueError, match="`parameters` must be among the optimizer's, got 'b'"):
        trainer.run()
