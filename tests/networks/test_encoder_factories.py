"""Tests of encoders from MONAI, transformers and timm: weights, normalization, tokens, gray images."""

import json
import re
import shutil
import sys
import types

import pytest
import torch
from monai.networks import nets
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import fingerprint
from monai_mil_ext.networks.encoders import InputSpec, monai_encoder, timm_encoder, transformers_encoder
from monai_mil_ext.networks.encoders import volume_encoder as make_volume_encoder

COLOR = InputSpec(3, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
PROCESSOR = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
SIZED = {**PROCESSOR, "do_resize": True, "size": {"height": 28, "width": 28}, "rescale_factor": 1 / 255}


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


def test_load_encoder_weights_lists_mismatches(tmp_path):
    state = densenet().state_dict()
    state["features.extra"] = state.pop("features.conv0.weight")
    state["features.norm0.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pt")
    message = (
        "`path` must hold the weights of DenseNet, got 'w.pt': missing features.conv0.weight; "
        "unexpected features.extra; other shapes features.norm0.bias of (3,) for (8,)."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        monai_encoder(densenet(), tmp_path / "w.pt", COLOR)
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"must hold a dictionary of tensors, got a dictionary of \['epoch', 'loss'\]"):
        monai_encoder(densenet(), tmp_path / "w.pt", COLOR)


class Harm:
    def __reduce__(self):
        return (print, ("harm",))


def test_load_encoder_weights_runs_no_code(tmp_path, capsys):
    torch.save({"a": Harm()}, tmp_path / "w.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        monai_encoder(densenet(), tmp_path / "w.pt", COLOR)
    assert "harm" not in capsys.readouterr().out


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


def model(kind, folder, processor=SIZED):
    """Save a small model with random weights in the format of the hub."""
    transformers = pytest.importorskip("transformers")
    options = {
        "ViT": {**SMALL, "intermediate_size": 16},
        "Dinov2": {**SMALL, "mlp_ratio": 1},
        "Dinov2WithRegisters": {**SMALL, "mlp_ratio": 1, "num_register_tokens": 3},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
    }[kind]
    net = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**options)).eval()
    net.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return net


KINDS = [("ViT", "cls", 1), ("Dinov2", "cls", 1), ("Dinov2WithRegisters", "mean", 4), ("ResNet", "mean", 0)]


@pytest.mark.parametrize(("kind", "output", "prefix"), KINDS)
def test_transformers_encoder_returns_last_hidden_state(tmp_path, kind, output, prefix):
    net = model(kind, tmp_path)
    encoder = transformers_encoder(tmp_path, output=output, local_files_only=True)
    assert encoder.input_spec == InputSpec(3, [28, 28], [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert encoder.prefix_tokens == prefix
    x = torch.rand(2, 3, 28, 28)
    mean, std = (torch.tensor(PROCESSOR[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    with torch.no_grad():
        hidden = net(pixel_values=(x - mean) / std).last_hidden_state
    hidden = hidden if kind != "ResNet" else hidden.flatten(2).mT
    assert_close(encoder(x), hidden[:, 0] if output == "cls" else hidden[:, prefix:].mean(1), atol=1e-5, rtol=1e-5)
    gray = transformers_encoder(tmp_path, output=output, local_files_only=True, gray=True)
    # rounding differences grow through a deep network
    assert_close(gray(x[:, :1]), encoder(x[:, :1].expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)


def test_transformers_encoder_fingerprint_depends_on_weights_only(tmp_path):
    model("ViT", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    encoder, other = (transformers_encoder(tmp_path / name, local_files_only=True) for name in "ab")
    assert fingerprint(encoder) == fingerprint(other)
    with torch.no_grad():
        other.net.net.layernorm.bias[0] += 1e-6
    assert fingerprint(encoder) != fingerprint(other)


def test_transformers_encoder_ignores_pooler_without_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    net = model("ViT", tmp_path)
    transformers.ViTModel(net.config, add_pooling_layer=False).save_pretrained(tmp_path)
    first, second = (fingerprint(transformers_encoder(tmp_path, local_files_only=True)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({**PROCESSOR, "do_center_crop": True, "crop_size": 28, "size": {"shortest_edge": 30}}, [28, 28]),
        ({**PROCESSOR, "size": {"shortest_edge": 28}}, None),
        ({**PROCESSOR, "size": 28, "do_normalize": False}, [28, 28]),
    ],
)
def test_transformers_encoder_reads_sizes_of_image_processors(tmp_path, processor, expected):
    model("Dinov2", tmp_path, processor)
    input_spec = transformers_encoder(tmp_path, local_files_only=True, output="mean").input_spec
    assert input_spec.size == expected
    assert input_spec.mean == (PROCESSOR["image_mean"] if processor.get("do_normalize", True) else [0.0])


def test_transformers_encoder_rejects_incomplete_models(tmp_path):
    model("Dinov2", tmp_path, processor=None)
    with pytest.raises(ValueError, match="`input_spec` must be given for a model without an image processor"):
        transformers_encoder(tmp_path, local_files_only=True)
    given = transformers_encoder(tmp_path, InputSpec(3, (28, 28)), local_files_only=True)
    assert given.out_features == 16
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "model.safetensors")
    state.pop("layernorm.bias")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"`model` must come with all weights, got none for layernorm\.bias"):
        transformers_encoder(tmp_path, InputSpec(3, (28, 28)), local_files_only=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        transformers_encoder(tmp_path, InputSpec(3, (28, 28)), local_files_only=True)


class StandIn(nn.Module):
    """Stand-in with what timm_encoder uses of a timm model, which needs torchvision."""

    def __init__(self, last):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.num_features, self.num_prefix_tokens, self.last = 6, 0, last

    def forward_features(self, x):
        features = self.stem(x)
        return features.movedim(1, -1) if self.last else features


@pytest.mark.parametrize("last", [False, True])
def test_timm_encoder_with_a_stand_in(tmp_path, monkeypatch, last):
    config = {"input_size": (3, 8, 8), "mean": COLOR.mean, "std": COLOR.std}
    calls = []
    timm = types.ModuleType("timm")
    timm.create_model = lambda name, **options: calls.append((name, options)) or StandIn(last)
    timm.data = types.SimpleNamespace(resolve_model_data_config=lambda net: config)
    monkeypatch.setitem(sys.modules, "timm", timm)
    source, x = StandIn(last), torch.rand(2, 1, 8, 8)
    encoder = timm_encoder("some_model", save(source, tmp_path), gray=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (COLOR.mean, COLOR.std))
    assert_close(encoder(x), source.stem((x - mean) / std).mean((2, 3)), atol=1e-6, rtol=1e-6)
    assert calls == [("some_model", {"pretrained": False, "num_classes": 0})]
    assert timm_encoder("some_model").input_spec == InputSpec(3, [8, 8], COLOR.mean, COLOR.std)
    assert calls[1] == ("some_model", {"pretrained": True, "num_classes": 0})


def test_timm_encoder_without_timm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(Exception, match="timm"):
        timm_encoder("some_model")
