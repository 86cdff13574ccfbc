"""Tests of encoders from MONAI networks: heads, outputs, checkpoints and volumes."""

import pytest
import torch
from monai.networks import nets
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import fingerprint
from monai_mil_ext.networks.encoders import InputSpec, monai_encoder
from monai_mil_ext.networks.encoders import volume_encoder as make_volume_encoder

COLOR = InputSpec(3, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def densenet(classes=2):
    return nets.DenseNet(2, 3, classes, init_features=8, growth_rate=4, block_config=(1, 1))


def swin():
    return nets.SwinUNETR(1, 2, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), feature_size=12, spatial_dims=2)


def save(net, folder, key=None, prefix=""):
    state = {prefix + name: value for name, value in net.state_dict().items()}
    torch.save({key: state, "epoch": 3} if key else state, folder / "weights.pt")
    return folder / "weights.pt"


def test_monai_encoder_removes_heads():
    x = torch.rand(2, 3, 64, 64)
    dense, res = densenet().eval(), nets.resnet10(spatial_dims=2, n_input_channels=3, num_classes=2).eval()
    plain = InputSpec(3)
    with torch.no_grad():
        assert_close(monai_encoder(dense, input_spec=plain)(x), dense.class_layers[:3](dense.features(x)))
        res.fc, head = nn.Identity(), res.fc
        pooled = res(x)
        res.fc = head
    assert_close(monai_encoder(res, input_spec=plain)(x), pooled)


def test_monai_encoder_of_vit_returns_class_token():
    vit = nets.ViT(
        1, (16, 16), (8, 8), 12, 8, 1, 2, classification=True, num_classes=3, spatial_dims=2, post_activation="none"
    ).eval()
    encoder = monai_encoder(vit, input_spec=InputSpec(1, (16, 16)), output="cls")
    x = torch.rand(2, 1, 16, 16)
    assert_close(vit.classification_head(encoder(x)), vit(x)[0])
    assert monai_encoder(vit, input_spec=InputSpec(1, (16, 16)), output="mean_max").out_features == 24
    assert encoder.prefix_tokens == 1


def test_monai_encoder_of_swin_unetr_runs_no_decoder():
    net, x = swin().eval(), torch.rand(1, 1, 64, 64)
    deepest = net.swinViT(x, net.normalize)[-1]
    net.decoder1 = net.encoder1 = None
    assert_close(monai_encoder(net)(x), deepest.mean((2, 3)))


@pytest.mark.parametrize(("key", "prefix"), [(None, ""), ("state_dict", "module."), ("model", ""), ("network", "")])
def test_monai_encoder_reads_checkpoint_with_another_head(tmp_path, key, prefix):
    source = densenet(classes=5).eval()
    file = save(source, tmp_path, key, prefix)
    options = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "init_features": 8, "growth_rate": 4}
    encoder = monai_encoder("DenseNet", file, COLOR, options={**options, "block_config": (1, 1)}, gray=True)
    x = torch.rand(2, 1, 64, 64)
    assert_close(encoder(x), monai_encoder(source, input_spec=COLOR)(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("make", "channels"), [(densenet, 3), (swin, 1)], ids=["DenseNet", "SwinUNETR"])
def test_monai_encoder_ignores_unused_weights(tmp_path, make, channels):
    file = save(make(), tmp_path)
    first, again = (monai_encoder(make(), file, InputSpec(channels)) for _ in range(2))
    assert fingerprint(first) == fingerprint(again)


def test_monai_encoder_rejects_unknown_networks_and_missing_weights():
    with pytest.raises(ValueError, match=r"`network` must be one of .* got 'DenseNet12'; did you mean 'DenseNet121'"):
        monai_encoder("DenseNet12")
    with pytest.raises(ValueError, match="`checkpoint` must be given for a network by name, got None for 'Dense"):
        monai_encoder("DenseNet121")
    with pytest.raises(ValueError, match=r"`options` must be None if the network is a module, got \{'a': 1\}"):
        monai_encoder(densenet(), options={"a": 1})


def test_volume_encoder_returns_a_map(tmp_path):
    net = nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2, widen_factor=0.1).eval()
    file = save(net, tmp_path)
    same = nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=4, widen_factor=0.1)
    x = torch.rand(1, 1, 32, 32, 16)
    given = make_volume_encoder(same, file)(x)
    trunk = nn.Sequential(net.conv1, net.bn1, net.act, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4)
    assert_close(given, trunk(x))
