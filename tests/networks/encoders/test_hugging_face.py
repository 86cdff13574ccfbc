"""Tests of encoders from the transformers library."""

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.data import fingerprint
from monai_mil_ext.networks.encoders import InputSpec, transformers_encoder

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
PROCESSOR = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
SIZED = {**PROCESSOR, "do_resize": True, "size": {"height": 28, "width": 28}, "rescale_factor": 1 / 255}


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
