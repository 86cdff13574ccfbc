"""Tests that published checkpoints load completely, or not at all with all mismatches named."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL, QGMIL, load_reference_state_dict
from monai_mil_ext.networks.nets.transformers.qgmil import PRESETS

POOL = {"attention_V.0": 2, "attention_U.0": 2, "attention_weights": 2, "norm": 1}


def published(net):
    return {name: torch.rand_like(net.state_dict()[ours]) for name, ours in net.reference_names().items()}


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2}, {"pooling": "cls"}], ids=["heads", "grouped", "cls"])
@pytest.mark.parametrize("name", PRESETS)
def test_load_reference_state_dict_loads_every_preset(name, options):
    with torch.device("meta"):
        net = QGMIL.from_preset(name, 16, 1, **options)
    net = net.to_empty(device="cpu")
    weights = published(net)
    load_reference_state_dict(net, weights)
    assert_close([net.state_dict()[ours] for ours in net.reference_names().values()], [*weights.values()])
    assert set(net.reference_names().values()) == net.state_dict().keys()
    norms = 2 if "layer" in name or "minimal" in name else 1
    first = [n for n in weights if n.startswith("layers.0.")]
    assert len(first) == 7 + 2 * norms + 2 * (name not in ("qgmil_layernorm", "qgmil_minimal", "qgmil_no_qknorm"))
    assert ("cls_token" in weights) is (options.get("pooling") == "cls")


def test_load_reference_state_dict_ignores_unused_pool():
    net, odd = (QGMIL.from_preset("qgmil_small", 16, 1, pooling="cls", reference_compat=c) for c in (False, True))
    weights = published(odd)
    assert sum(n.startswith("pooling.") for n in weights) == sum(POOL.values())
    load_reference_state_dict(odd, weights)
    load_reference_state_dict(net, weights)
    x = torch.rand(1, 4, 16)
    assert_close(net.eval()(x), odd.eval()(x), rtol=0, atol=0)
    mean = QGMIL.from_preset("qgmil_small", 16, 1, pooling="mean")
    with pytest.raises(
        ValueError, match=r"unexpected: cls_token, pooling.attention_V.0.weight, .*, pooling.norm.weight"
    ):
        load_reference_state_dict(mean, weights)


def test_load_reference_state_dict_names_all_mismatches_and_copies_nothing():
    net = QGMIL(6, 1, hidden_size=8)
    weights, before = published(net), {k: v.clone() for k, v in net.state_dict().items()}
    weights["classifier.3.weight"] = torch.rand(2, 4)
    weights["classifier.3.bias"] = torch.rand(2)
    weights["optimizer"] = weights.pop("final_norm.weight")
    weights["pooling.bias"] = weights.pop("layers.0.mlp.up_proj.weight")
    with pytest.raises(ValueError, match="`state_dict` must have the weights of QGMIL, got") as error:
        load_reference_state_dict(net, weights)
    assert str(error.value).splitlines()[1:] == [
        "missing: layers.0.mlp.up_proj.weight, final_norm.weight",
        "unexpected: optimizer, pooling.bias",
        "of another shape: classifier.3.weight (2, 4) for (1, 4), classifier.3.bias (2,) for (1,)",
    ]
    assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_load_reference_state_dict_keeps_dtype_and_gradients():
    net = QGMIL(6, 1, hidden_size=8)
    weights = {name: w.double() for name, w in published(net).items()}
    load_reference_state_dict(net, weights)
    weights["classifier.3.bias"].fill_(7)
    assert net.classifier[3].bias.dtype == torch.float32
    assert net.classifier[3].bias.requires_grad
    assert net.classifier[3].bias.item() != 7


def test_load_reference_state_dict_rejects_net_without_published_weights():
    with pytest.raises(ValueError, match="`net` must be a network with published weights, got ABMIL"):
        load_reference_state_dict(ABMIL(4, 2), {})
