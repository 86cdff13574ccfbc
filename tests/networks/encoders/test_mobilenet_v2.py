"""Tests of MobileNetV2Features against the implementation of transformers, with other names and layout."""

import pytest
import torch

from monai_mil_ext.networks.encoders import MobileNetV2Features

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def net():
    """Create a network with different statistics and weights for all channels."""
    encoder = MobileNetV2Features()
    for name, value in encoder.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
    return encoder


def test_mobilenet_v2_matches_transformers(net):
    transformers = pytest.importorskip("transformers")
    other = transformers.MobileNetV2Model(
        transformers.MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5), add_pooling_layer=False
    ).eval()
    ours, theirs = net.state_dict(), other.state_dict()
    # both list their layers in order
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    other.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    image = torch.rand(2, 3, 64, 96)
    last = other((image - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)).last_hidden_state
    expected = torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1)
    assert expected.std() > 0.01
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-5)


def test_mobilenet_v2_gray_image_equals_three_equal_channels(net):
    image = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(net(image), net(image.expand(-1, 3, -1, -1)), rtol=0, atol=0)


def test_mobilenet_v2_has_published_weight_names(net):
    names = list(net.state_dict())
    assert names[:2] == ["features.0.0.weight", "features.0.1.weight"]
    assert {"features.1.conv.0.0.weight", "features.2.conv.3.running_var", "features.18.0.weight"} <= set(names)
    assert (
        sum(value.numel() for value in net.parameters()) == 3_504_872 - 1000 * 1281
    )  # as in the paper, without the classifier


def test_mobilenet_v2_loads_published_file_and_rejects_others(net, tmp_path):
    state = {**net.state_dict(), "classifier.1.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "w.pt")
    again, image = MobileNetV2Features(tmp_path / "w.pt"), torch.rand(1, 1, 64, 64)
    assert torch.equal(again(image), net(image))
    fresh = MobileNetV2Features()
    fresh.load_state_dict(state)
    assert "classifier.1.bias" in state  # the loaded state dict is not modified
    assert torch.equal(fresh(image), net(image))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*head\.weight"):
        fresh.load_state_dict({**state, "head.weight": torch.zeros(1)})
    state.pop("features.18.0.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"of MobileNetV2Features, got 'w.pt': missing features\.18\.0\.weight"):
        MobileNetV2Features(tmp_path / "w.pt")
    with pytest.raises(
        FileNotFoundError, match=r"`weights` must be a file that exists, got 'absent\.pt'; the published"
    ):
        MobileNetV2Features(tmp_path / "absent.pt")


def test_mobilenet_v2_is_frozen_and_scriptable(net):
    assert not net.training
    assert not any(value.requires_grad for value in net.parameters())
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(torch.jit.script(net)(image), net(image))


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 8, 8), (1, 1, 8, 8, 8)])
def test_mobilenet_v2_rejects_other_images(net, shape):
    with pytest.raises(ValueError, match=r"`x` must have shape \(N, 1 or 3, h, w\), got "):
        net(torch.rand(shape))
