"""EncodeInstances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.transforms import EncodeInstances, EncodeInstancesd


def encoder():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@given(n=st.integers(1, 9), chunk_size=st.integers(1, 10))
def test_the_chunk_size_changes_nothing(n, chunk_size):
    net, bag = encoder(), torch.randn(n, 1, 5, 5)
    features = EncodeInstances(net, chunk_size)(bag)
    assert_close(features, net.eval()(bag))
    assert features.dtype == torch.float32


def test_the_encoder_stays_as_it_was():
    net = encoder().train()
    net[1].eval()  # frozen by hand
    before = {k: v.clone() for k, v in net.state_dict().items()}
    EncodeInstances(net)(torch.randn(3, 1, 5, 5))
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(RuntimeError, match="expected input"):
        EncodeInstances(net)(torch.randn(3, 2, 5, 5))
    assert net.training


def test_features_can_be_learned_from():
    features = EncodeInstances(encoder())(MetaTensor(torch.randn(3, 1, 5, 5)))
    head = nn.Linear(4, 1)
    head(features).sum().backward()
    assert_close(head.weight.grad[0], features.sum(0))
    assert type(features) is torch.Tensor
    assert not features.requires_grad


class Other(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


@pytest.mark.parametrize(
    ("how", "got"),
    [
        (lambda x: x, r"\(2, 1, 5, 5\)"),
        (lambda x: x.flatten(1)[:1], r"\(1, 25\)"),
        (lambda x: (x.flatten(1),), "tuple"),
    ],
)
def test_other_outputs_are_named(how, got):
    with pytest.raises(ValueError, match=rf"`encoder` must give features \(n, F\) of n = 2 instances, got {got}\."):
        EncodeInstances(Other(how))(torch.randn(2, 1, 5, 5))


def test_half_precision_comes_back_as_float():
    assert EncodeInstances(Other(lambda x: x.flatten(1).half()))(torch.ones(2, 1, 5, 5)).dtype == torch.float32


def test_the_dictionary_form_takes_what_the_array_form_takes():
    bag = torch.randn(5, 1, 4, 4)
    out = EncodeInstancesd("image", nn.Flatten(), 2, "cpu")({"image": bag, "label": 1})
    assert torch.equal(out["image"], bag.flatten(1))
    assert out["label"] == 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"`bag` must have shape \(N, \.\.\.\) with an instance, got \(0, 1, 5, 5\)"):
        EncodeInstances(encoder())(torch.ones(0, 1, 5, 5))
    with pytest.raises(ValueError, match="`chunk_size` must be a positive integer, got 0"):
        EncodeInstances(encoder(), 0)
