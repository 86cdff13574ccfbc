"""Tests of the optimizers of bundles: fused ones, which take a third of the time, and old checkpoints in them."""

import copy

import pytest
import torch
import yaml
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.scripts_of import BUNDLES

CONFIGS = sorted(BUNDLES.glob("*/configs/train.yaml"))


def test_trainings_have_fused_optimizers():
    optimizers = {path.parts[-3]: yaml.safe_load(path.read_text())["optimizer"] for path in CONFIGS}
    assert {name: optimizer["fused"] for name, optimizer in optimizers.items()} == dict.fromkeys(optimizers, True)
    assert len(optimizers) >= 3


@pytest.mark.parametrize(("saved", "resumed"), [(None, True), (True, None)], ids=["old", "new"])
def test_checkpoints_of_either_kind_are_resumed(saved, resumed):
    """A checkpoint of an optimizer that is not fused, from before, continues as if it had not been interrupted."""

    def train(net, optimizer, steps):
        for x in torch.rand(steps, 1, 5, 8, generator=torch.Generator().manual_seed(0)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    net, again = ABMIL(8, 2), ABMIL(8, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, fused=saved)
    train(net, optimizer, 3)
    again.load_state_dict(net.state_dict())
    resumed_optimizer = torch.optim.AdamW(again.parameters(), lr=0.5, fused=resumed)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as read from a file
    train(net, optimizer, 2)
    train(again, resumed_optimizer, 2)
    assert_close(again.state_dict(), net.state_dict(), rtol=1e-5, atol=1e-7)
