"""Tests of IntermediateOutput."""

import pytest
import torch
from torch import nn

from monai_mil_ext.networks.encoders import IntermediateOutput


class Gives(nn.Module):
    """Network with a given output."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


def test_intermediate_output_runs_no_later_layers():
    def fail(x):
        raise RuntimeError("ran")

    net = nn.Sequential(nn.Conv2d(1, 4, 3), Gives(lambda x: [x, x + 1]), Gives(fail))
    x = torch.rand(2, 1, 6, 6)
    assert torch.equal(IntermediateOutput(net, "1")(x), net[0](x) + 1)
    assert not net[1]._forward_hooks
    with pytest.raises(RuntimeError, match="ran"):
        net(x)
    with pytest.raises(ValueError, match=r"`layer` must be a module of Sequential \(0, 1, 2, ...\), got '3'"):
        IntermediateOutput(net, "3")
    unused = Gives(lambda x: x)
    unused.spare = nn.ReLU()
    with pytest.raises(ValueError, match="`layer` must be called by Gives, got 'spare'"):
        IntermediateOutput(unused, "spare")(x)
