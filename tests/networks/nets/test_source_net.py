"""Tests of the network for several sources beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate
from monai_mil_ext.networks.nets import ABMIL, SourceNet
from monai_mil_ext.transforms import JoinSourcesd
from tests.helpers import fill

SIZES = {"10x": 3, "20x": 5}


def make(**options):
    return fill(SourceNet(ABMIL(4, 2, **options), SIZES, hidden_size=4)).double()


def item(few=4, many=7):
    generator = torch.Generator().manual_seed(few)
    bags = {"10x": torch.randn(few, 3, generator=generator), "20x": torch.randn(many, 5, generator=generator)}
    return JoinSourcesd(list(SIZES), "image", num_features=5)({key: bag.double() for key, bag in bags.items()})


def test_each_source_has_its_own_layer_and_embedding():
    net, bag = make(), item()
    first, second = net.project
    h = [p.linear(bag[key]) + p.embedding for p, key in ((first, "10x"), (second, "20x"))]
    assert_close(net(bag["image"][None]), net.net(torch.cat(h)[None]))
    before = net(bag["image"][None])
    with torch.no_grad():
        second.embedding.add_(1.0)
    assert not torch.allclose(net(bag["image"][None]), before)


def test_features_behind_a_smaller_source_have_no_weight():
    net, bag = make(), item()["image"][None]
    dirty = bag.clone()
    dirty[0, :4, 3:5] = 99.0
    assert torch.equal(net(dirty), net(bag))


def test_normalized_instances_do_not_depend_on_the_scale_of_their_source():
    net = fill(SourceNet(ABMIL(4, 2), SIZES, hidden_size=4, normalize=True)).double()
    bag = item()["image"][None]
    scaled = bag.clone()
    scaled[0, :4, :3] = 1e3 * bag[0, :4, :3] + 5
    assert_close(net(scaled), net(bag), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(make()(scaled), make()(bag))


def test_attention_of_all_sources_sums_to_one():
    net = make(num_heads=2)
    batch = BagCollate(["image"])([{"image": item(few)["image"]} for few in (4, 1)])
    attention = net.forward_bag(batch["image"], batch["mask"]).attention
    shares = net.source_attention(attention, batch["image"])
    assert_close(shares["10x"][0], attention[0, :4].sum(0))
    assert_close(shares["20x"][1], attention[1, 1:8].sum(0))
    assert_close(shares["10x"] + shares["20x"], torch.ones(2, 2, dtype=torch.float64))


def test_sources_are_in_the_record_of_the_network():
    call = SourceNet(ABMIL(4, 2), SIZES, hidden_size=4)._constructor_arguments
    assert call["sources"] == SIZES
    assert call["net"] == {"class": "ABMIL", "arguments": {"in_features": 4, "num_classes": 2}}


@pytest.mark.parametrize("sources", [{}, {"10x": 0}])
def test_sources_are_checked(sources):
    with pytest.raises(ValueError, match=r"`sources.* must"):
        SourceNet(ABMIL(4, 2), sources, hidden_size=4)
