"""Tests of the options of a network."""

import pytest
import torch
from torch import nn

from monai_mil_ext.apps.bundle.module_options import network_options
from monai_mil_ext.data.models.network_options import check_same_options
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL, TransMIL

SIZES = {"in_features": 8, "num_classes": 2, "hidden_size": 16}


@pytest.mark.parametrize("kind", [ABMIL, ASMIL, QGMIL, TransMIL])
def test_network_options_ignore_weights_mode_and_dropout(kind):
    check_same_options(network_options(kind(**SIZES, dropout=0.5)), network_options(kind(**SIZES, dropout=0.0).eval()))


def test_network_options_ignore_token_drop():
    check_same_options(network_options(ASMIL(**SIZES, token_drop=0.5)), network_options(ASMIL(**SIZES, token_drop=0.0)))


def test_network_options_tell_options_with_equal_weight_shapes():
    trained, other = ASMIL(**SIZES, num_heads=2).eval(), ASMIL(**SIZES, num_heads=4).eval()
    other.load_state_dict(trained.state_dict())  # loads silently
    bag = torch.randn(1, 9, 8)
    assert not torch.allclose(trained(bag), other(bag))
    with pytest.raises(ValueError, match=r"network that was trained, whose \S*num_heads is 2, got 4; .*--network_def#"):
        check_same_options(network_options(trained), network_options(other))


def test_network_options_tell_other_activation_and_accept_older_options():
    trained = network_options(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(ValueError, match=r"whose 1\.class is ReLU, got GELU"):
        check_same_options(trained, network_options(nn.Sequential(nn.Linear(2, 2), nn.GELU())))
    older = {**trained, "1.of_another_version": 3}
    larger = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))  # left to load_state_dict
    check_same_options(older, network_options(larger))
