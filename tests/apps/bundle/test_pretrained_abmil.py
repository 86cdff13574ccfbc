"""Tests of loading attention networks in MIL-Lab's layout, on random weights of that layout."""

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from monai_mil_ext.apps.bundle import load_pretrained_abmil

F, E, D, C = 12, 8, 5, 3


def weights(gated=True, heads=1, classes=C, prefix="model."):
    """Return random weights by their names in MIL-Lab, of a projection, an attention and a classifier, with biases."""
    parts = {"attention_a.0": (D, E), "attention_b.0": (D, E), "attention_c": (heads, D)}
    attention = parts if gated else {"module.0": (D, E), "module.3": (heads, D)}
    shapes = {"patch_embed.0": (E, F), **{f"global_attn.{name}": shape for name, shape in attention.items()}}
    if classes:
        shapes["classifier"] = (classes, heads * E)
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes.items():
        found[f"{prefix}{name}.weight"] = torch.randn(shape, generator=draw)
        found[f"{prefix}{name}.bias"] = torch.randn(shape[0], generator=draw)
    return found


def logits_of(w, x, gated):
    """Compute the logits (C,) of a bag (N, F): attention of each head, heads side by side, linear classifier."""

    def linear(name, h):
        return h @ w[f"model.{name}.weight"].T + w[f"model.{name}.bias"]

    h = linear("patch_embed.0", x).relu()
    if gated:
        hidden = linear("global_attn.attention_a.0", h).tanh() * linear("global_attn.attention_b.0", h).sigmoid()
        scores = linear("global_attn.attention_c", hidden)
    else:
        scores = linear("global_attn.module.3", linear("global_attn.module.0", h).tanh())
    return linear("classifier", (scores.softmax(0).T @ h).flatten())


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("gated", [True, False])
def test_weights_of_mil_lab_give_its_logits(tmp_path, gated, heads):
    published, x = weights(gated, heads), torch.randn(7, F)
    torch.save(published, tmp_path / "pytorch_model.bin")
    net = load_pretrained_abmil(tmp_path).eval()
    assert_close(net(x[None])[0], logits_of(published, x, gated))


def test_a_folder_of_the_hub_and_a_file_without_prefix_are_the_same(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "abmil"}')
    torch.save({"state_dict": weights(prefix="")}, tmp_path / "abmil.pth")
    one, other = (load_pretrained_abmil(path) for path in (tmp_path, tmp_path / "abmil.pth"))
    assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("classes", [0, C])
def test_another_task_gets_a_new_classifier_and_keeps_the_rest(tmp_path, classes):
    published = weights(classes=classes)
    torch.save(published, tmp_path / "feather.bin")
    net = load_pretrained_abmil(tmp_path / "feather.bin", num_classes=5, in_features=F)
    assert net.classify.weight.shape == (5, E)
    assert_close(net.embed[0].bias.data, published["model.patch_embed.0.bias"], rtol=0, atol=0)
    assert_close(net.attend.gate.weight.data, published["model.global_attn.attention_b.0.weight"], rtol=0, atol=0)
    assert net._constructor_arguments["bias"] is True


def broken(change):
    found = weights()
    change(found)
    return found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken(lambda w: w.pop("model.patch_embed.0.bias")), r"got 'w.bin' with other \['embed.0.bias'\]"),
        (broken(lambda w: w.update({"model.patch_embed.3.bias": torch.ones(1)})), r"other \['patch_embed.3.bias'\]"),
        (broken(lambda w: w.update({"model.patch_embed.0.bias": torch.ones(1)})), r"other \['embed.0.bias'\]"),
        (broken(lambda w: w.pop("model.patch_embed.0.weight")), r"`path` must hold patch_embed.0.weight, a projection"),
        (broken(lambda w: w.pop("model.global_attn.attention_c.weight")), r"an attention in the layout of MIL-Lab"),
        ({"step": 3}, "`path` must hold the state dict of a network, got 'w.bin'"),
        (weights(classes=0), "`num_classes` must be given for weights without a classifier, got None for 'w.bin'"),
    ],
    ids=["missing", "unexpected", "shape", "projection", "attention", "none", "head"],
)
def test_other_weights_are_refused_by_name(tmp_path, content, message):
    torch.save(content, tmp_path / "w.bin")
    with pytest.raises(ValueError, match=message):
        load_pretrained_abmil(tmp_path / "w.bin")


def test_a_missing_file_and_another_width_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a folder with model.safetensors or .*, got 'none'"):
        load_pretrained_abmil(tmp_path / "none", 2)
    torch.save(weights(), tmp_path / "w.bin")
    with pytest.raises(ValueError, match="`path` must hold weights for 7 features, got 12"):
        load_pretrained_abmil(tmp_path / "w.bin", 2, in_features=7)
