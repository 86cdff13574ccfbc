"""Tests that a folded convolution of a gray image equals that of its repeated channel, for any padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.encoders import adapt_input_conv, fold_rgb_conv

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PADDING = [0, 2, "same", "valid", (1, 0)]


def repeated(conv, gray, mean, std):
    shape = (-1, *[1] * (gray.ndim - 2))
    color = gray.expand(-1, conv.in_channels, *gray.shape[2:])
    return conv((color - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape))


@given(
    padding=st.sampled_from(PADDING),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect"]),
    numbers=st.sampled_from([(MEAN, STD), ((0.5,), (0.5,)), ((0.0,), (1.0,))]),
    seed=st.integers(0, 99),
)
def test_fold_rgb_conv_equals_repeated_normalized_channel(padding, bias, mode, numbers, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 5, 4, padding=padding, bias=bias, padding_mode=mode)
    gray = torch.rand(2, 1, 11, 9)
    folded = fold_rgb_conv(conv, *numbers)
    assert_close(folded(gray), repeated(conv, gray, *numbers), atol=1e-6, rtol=1e-6)


def test_fold_rgb_conv_keeps_volumes_strides_and_dilation():
    conv = nn.Conv3d(3, 4, 3, stride=2, dilation=2, padding=1)
    gray = torch.rand(1, 1, 9, 8, 7)
    assert_close(fold_rgb_conv(conv, MEAN, STD)(gray), repeated(conv, gray, MEAN, STD), atol=1e-6, rtol=1e-6)


def test_fold_rgb_conv_without_constant_sums_the_color_kernels():
    conv = nn.Conv2d(3, 5, 4, padding=1).double().requires_grad_(False).eval()
    folded = fold_rgb_conv(conv)
    assert isinstance(folded, nn.Conv2d)
    assert torch.equal(folded.weight, conv.weight.sum(1, keepdim=True))
    assert torch.equal(folded.bias, conv.bias)
    assert not folded.weight.requires_grad
    assert not folded.training


def test_fold_rgb_conv_adds_mean_to_bias_without_padding():
    folded = fold_rgb_conv(nn.Conv2d(3, 5, 4, bias=False), MEAN, STD)
    assert folded.weight.shape == (5, 1, 4, 4)
    assert folded.bias.shape == (5,)


class Checked(nn.Module):
    """Network that checks channels as ``transformers`` does."""

    def __init__(self):
        super().__init__()
        self.num_channels = 3
        self.part = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        assert x.shape[1] == self.num_channels
        return self.part(x)


def test_adapt_input_conv_replaces_the_first_convolution_only():
    net, gray = Checked(), torch.rand(2, 1, 8, 8)
    expected, later = net(gray.expand(-1, 3, -1, -1)), net.part[1]
    adapt_input_conv(net)
    assert_close(net(gray), expected, atol=1e-6, rtol=1e-6)
    assert net.part[1] is later


def test_fold_rgb_conv_rejects_what_it_cannot_fold():
    with pytest.raises(ValueError, match="`conv` must be a Conv2d or Conv3d of one group, got Linear of None"):
        fold_rgb_conv(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="`conv` must be a Conv2d or Conv3d of one group, got Conv2d of 3"):
        fold_rgb_conv(nn.Conv2d(3, 3, 1, groups=3))
    with pytest.raises(ValueError, match="`mean` must have 1 or 3 numbers, got 2"):
        fold_rgb_conv(nn.Conv2d(3, 3, 1), (0.1, 0.2))
    with pytest.raises(ValueError, match="`net` must hold a first convolution of several channels, got '0' of 1"):
        adapt_input_conv(nn.Sequential(nn.Conv2d(1, 3, 1)))
    for net in (nn.Linear(3, 3), nn.Sequential()):
        with pytest.raises(ValueError, match="`net` must hold a first convolution of several channels, got none"):
            adapt_input_conv(net)
