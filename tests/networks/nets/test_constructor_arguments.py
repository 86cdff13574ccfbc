"""Tests of the description of a constructor call."""

import copy
import pickle

import pytest
import torch
from torch import nn

from monai_mil_ext.networks.nets import ABMIL, CORAL, QGMIL, EncodedBag, QGMILBlock
from monai_mil_ext.networks.nets.constructor_arguments import describe_object


def test_describe_object_names_positional_and_nested_arguments():
    block = {"class": "QGMILBlock", "arguments": {"num_heads": 2}}
    described = describe_object(QGMIL(8, 2, hidden_size=8, block=QGMILBlock(num_heads=2)))
    assert described["arguments"].keys() == {"in_features", "num_classes", "hidden_size", "block"}
    assert described["arguments"]["block"]["class"] == "QGMILBlock"
    assert block["arguments"].items() <= described["arguments"]["block"]["arguments"].items()
    assert describe_object(CORAL(ABMIL(8, 1), 3))["arguments"]["net"]["class"] == "ABMIL"


@pytest.mark.parametrize("value", [nn.Linear(2, 2), EncodedBag(nn.Flatten(), ABMIL(4, 2)), 3, None, QGMILBlock])
def test_describe_object_gives_none_for_what_is_not_plain(value):
    assert describe_object(value) is None


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])  # noqa: S301
def test_a_copy_has_the_description_of_the_original(duplicate):
    net = ABMIL(8, 2, num_heads=2)
    assert describe_object(duplicate(net)) == describe_object(net)


def test_a_described_network_scripts_and_has_no_more_weights():
    net = ABMIL(8, 2)
    assert torch.jit.script(net)(torch.zeros(1, 3, 8)).shape == (1, 2)
    assert not any("constructor" in name for name in net.state_dict())
