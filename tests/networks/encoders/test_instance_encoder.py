"""Tests of InstanceEncoder: features (N, F) of any network, and checks of images."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import fingerprint
from monai_mil_ext.networks.encoders import InputSpec, InstanceEncoder
from monai_mil_ext.networks.nets import ABMIL, EncodedBag
from monai_mil_ext.transforms import EncodeInstances

COLOR = InputSpec(3, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Gives(nn.Module):
    """Network with a given output."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


def tokens(x):
    """Network with one token per row of the first channel."""
    return x[:, 0]


@pytest.mark.parametrize(
    ("output", "prefix", "expected"),
    [
        ("cls", 2, [0, 1]),
        ("mean", 2, [6, 7]),
        ("mean", 0, [4, 5]),
        ("mean_max", 2, [6, 7, 8, 9]),
        (lambda t: t[:, 1] + 1, 0, [3, 4]),
    ],
)
def test_instance_encoder_reduces_tokens_to_one_vector(output, prefix, expected):
    x = torch.arange(10.0).view(1, 1, 5, 2)
    encoder = InstanceEncoder(Gives(tokens), InputSpec(1, (5, 2), value_range=None), output, prefix)
    assert encoder(x).tolist() == [expected]
    assert encoder.out_features == len(expected)


def test_instance_encoder_treats_positions_of_a_map_as_tokens():
    x = torch.rand(4, 3, 6, 5)
    encoder = InstanceEncoder(Gives(lambda x: x), InputSpec(3), "mean_max")
    assert_close(encoder(x), torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
    assert encoder.out_features == 6
    vector = InstanceEncoder(nn.Flatten(), InputSpec(3, (6, 5)), "identity")
    assert torch.equal(vector(x), x.flatten(1))


def test_instance_encoder_normalizes_images():
    x = torch.rand(2, 3, 4, 4)
    encoder = InstanceEncoder(Gives(lambda x: x), COLOR)
    mean, std = torch.tensor(COLOR.mean), torch.tensor(COLOR.std)
    assert_close(encoder(x), (x.mean((2, 3)) - mean) / std)


def conv_net():
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(*layers)


def test_instance_encoder_of_gray_images_equals_repeated_channels():
    net, x = conv_net(), torch.rand(5, 1, 8, 8)
    expected = InstanceEncoder(net, COLOR)(x.expand(-1, 3, -1, -1))
    encoder = InstanceEncoder(net, COLOR, gray=True)
    assert_close(encoder(x), expected, atol=1e-6, rtol=1e-6)
    assert encoder.input_spec == InputSpec(1)


def test_instance_encoder_is_frozen_by_default():
    encoder = InstanceEncoder(conv_net(), COLOR).train()
    assert not any(module.training for module in encoder.modules())
    assert not encoder(torch.rand(2, 3, 8, 8)).requires_grad
    net = conv_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    learns = InstanceEncoder(net, COLOR, frozen=False)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in learns.modules())
    learns(torch.rand(2, 3, 8, 8)).sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


def test_instance_encoder_has_input_gradients_when_frozen():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    InstanceEncoder(conv_net(), COLOR)(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_instance_encoder_autocast_returns_float32():
    net, x = conv_net(), torch.rand(3, 3, 8, 8)
    plain, half = InstanceEncoder(net, COLOR)(x), InstanceEncoder(net, COLOR, amp_dtype=torch.bfloat16)(x)
    assert half.dtype == torch.float32
    assert not torch.equal(half, plain)
    assert_close(half, plain, atol=0.02, rtol=0.05)


def test_instance_encoder_fingerprint_covers_all_options():
    def make(**options):
        torch.manual_seed(0)
        return InstanceEncoder(conv_net(), **{"input_spec": COLOR, **options})

    other_weight = make()
    with torch.no_grad():
        other_weight.net[0].weight.view(-1)[7] += 1e-6
    other_mean = InputSpec(3, None, (0.5, 0.456, 0.406), COLOR.std)
    kinds = [
        make(),
        make(output="mean_max"),
        make(amp_dtype=torch.bfloat16),
        make(amp_dtype=torch.float16),
        make(input_spec=other_mean),
        make(gray=True),
        other_weight,
    ]
    assert len({fingerprint(encoder) for encoder in kinds}) == len(kinds)
    assert fingerprint(make()) == fingerprint(make(frozen=True))


def test_instance_encoder_encodes_bags():
    encoder, x = InstanceEncoder(conv_net(), COLOR), torch.rand(1, 5, 3, 8, 8)
    net = EncodedBag(encoder, ABMIL(encoder.out_features, 2), chunk_size=2).eval()
    assert_close(EncodeInstances(encoder, 2)(x[0]), encoder(x[0]))
    assert_close(net(x), net.aggregator(encoder(x[0])[None]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 1, 8, 8), r"shape \(N, 3, h, w\) for Sequential, got \(2, 1, 8, 8\)"),
        (torch.rand(3, 8, 8), r"shape \(N, 3, h, w\) for Sequential, got \(3, 8, 8\)"),
        (torch.rand(2, 3, 8, 9), r"images of size \(8, 8\) for Sequential, got \(8, 9\)"),
        (torch.linspace(0, 255, 384).reshape(2, 3, 8, 8), "values from 0 to 1 for Sequential, got 0 to 255"),
        (torch.full((2, 3, 8, 8), float("nan")), "values from 0 to 1 for Sequential, got nan to nan"),
    ],
)
def test_instance_encoder_rejects_other_images(x, message):
    encoder = InstanceEncoder(conv_net(), InputSpec(3, (8, 8)))
    with pytest.raises(ValueError, match=f"`x` must (have|be) {message}"):
        encoder(x)


def test_instance_encoder_rejects_outputs_without_a_vector():
    with pytest.raises(ValueError, match="`output` must be one of 'identity', 'cls', 'mean', 'mean_max', got 'max'"):
        InstanceEncoder(conv_net(), COLOR, "max")
    with pytest.raises(ValueError, match="`prefix_tokens` must be at least 1 for output 'cls', got 0"):
        InstanceEncoder(Gives(tokens), output="cls")
    with pytest.raises(ValueError, match=r"`output` must suit a network with output \(1, 3, 64, 64\), got 'identity'"):
        InstanceEncoder(Gives(lambda x: x), InputSpec(3), "identity")
    with pytest.raises(ValueError, match=r"`output` must suit a network with output \(1, 64\), got 'mean'"):
        InstanceEncoder(nn.Flatten(), InputSpec(1, (8, 8)))
    with pytest.raises(ValueError, match=r"must be a callable for a network without output .*, got tuple"):
        InstanceEncoder(Gives(lambda x: (x,)))
    with pytest.raises(ValueError, match=r"`output` must give \(N, F\), got \(1, 1, 64, 64\)"):
        InstanceEncoder(Gives(lambda x: (x,)), output=lambda given: given[0])
    encoder = InstanceEncoder(nn.Flatten(), output="identity")
    with pytest.raises(ValueError, match=r"`net` must give features \(N, 4096\), got \(2, 16\) for instances"):
        encoder(torch.rand(2, 1, 4, 4))
