"""Tests of QGMIL: published values, equations, presets; the laws of all networks are in tests/contracts."""

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.blocks.gated_self_attention import attention_weights
from monai_mil_ext.networks.nets import QGMIL, QGMILBlock, load_reference_state_dict
from tests.golden.reference_qgmil import deviations, published_input, published_weights
from tests.networks.qgmil_cases import FACTORIAL, OTHERS, C, E, F, batch, known, reference, tiny

CASES = json.loads((Path(__file__).parents[3] / "golden" / "qgmil.json").read_text())["cases"]
COUNTS = {  # at C = 1, for F of 1024, 1536, 768
    "qgmil": (5_120_386, 5_382_530, 4_989_314),
    "qgmil_base": (5_120_386, 5_382_530, 4_989_314),
    "qgmil_elementwise": (5_378_434, 5_640_578, 5_247_362),
    "qgmil_no_gate": (5_116_290, 5_378_434, 4_985_218),
    "qgmil_layernorm": (5_122_818, 5_384_962, 4_991_746),
    "qgmil_no_qknorm": (5_120_258, 5_382_402, 4_989_186),
    "qgmil_minimal": (5_118_722, 5_380_866, 4_987_650),
    "qgmil_deep": (17_719_042, 17_981_186, 17_587_970),
    "qgmil_light": (5_118_466, 5_380_610, 4_987_394),
    "qgmil_small": (2_461_058,),
}
WIDE, NARROW = {"rtol": 1e-10, "atol": 1e-10}, {"rtol": 1e-5, "atol": 1e-5}
dtypes = pytest.mark.parametrize(("dtype", "room"), [(torch.float64, WIDE), (torch.float32, NARROW)], ids=str)


def size(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", CASES)
def test_qgmil_has_published_values(name):
    case = CASES[name]
    with torch.device("meta"):
        net = QGMIL.from_preset(name, in_features=1024, num_classes=3).eval()
    net = net.to_empty(device="cpu")
    load_reference_state_dict(net, {key: torch.from_numpy(value) for key, value in published_weights(case).items()})
    assert list(net.reference_names()) == [row["name"] for row in case["parameters"]]
    assert size(net) == case["parameter_count"]
    x, mask = map(torch.from_numpy, published_input())
    out = net.forward_bag(x, mask)
    assert_close(net(x), torch.tensor(case["logits"]), rtol=0, atol=1e-5)
    assert_close(out.logits, torch.tensor(case["logits_masked"]), rtol=0, atol=1e-5)
    first = torch.tensor(case["pool_attention_masked_row1_first3"])
    assert_close(out.attention[1, :3, 0], first, rtol=0, atol=1e-5)
    assert not out.attention[~mask].any()
    heads = net.layers[0].project(net.input_proj(x))
    diagonal = attention_weights(heads.query, heads.key).diagonal(dim1=2, dim2=3).mean().item()
    assert diagonal == pytest.approx(case["layer0_attention_diagonal_mean_unmasked"], abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_published_values_of_qgmil_are_those_of_the_reference(name):
    assert max(deviations(CASES[name])) < 1e-6


@dtypes
@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "cls"])
@pytest.mark.parametrize("block", [*FACTORIAL, *OTHERS], ids=lambda block: "-".join(map(str, block.values())))
def test_qgmil_matches_equations(block, pooling, dtype, room):
    net = tiny(block, dtype, pooling=pooling, num_layers=2 if block in OTHERS else 1)
    x, mask = batch(dtype)
    out = net.forward_bag(x, mask)
    for i, real in enumerate(mask):
        expected = reference(net, block, x[i, real])
        for part in ("logits", "embedding"):
            assert_close(getattr(out, part)[i], torch.tensor(expected[part], dtype=dtype), **room)
        assert_close(out.attention[i, real], torch.tensor(expected["attention"], dtype=dtype), **room)
        if pooling == "attention":
            assert_close(out.scores[i, real], torch.tensor(expected["scores"], dtype=dtype), **room)
        if pooling == "cls":  # determined up to a constant per head
            scores = out.scores[i, real] - out.scores[i, :1]
            assert_close(scores, torch.tensor(expected["scores"] - expected["scores"][:1], dtype=dtype), **room)
        assert_close(net(x[i : i + 1, real])[0], out.logits[i], **room)
    assert not out.attention[~mask].any()
    assert (out.scores is None) is (pooling in ("mean", "max"))


def test_qgmil_of_an_empty_bag_classifies_zero():
    for pooling in ("attention", "mean", "max", "cls"):
        net, (x, mask) = tiny(pooling=pooling), batch()
        expected = (
            reference(net, {}, x[0, :0])["logits"] if pooling == "cls" else net.classifier(torch.zeros(E).double())
        )
        for given, real in ((x, mask & False), (x[:, :0], None), (x[:, :0], mask[:, :0])):
            assert_close(net(given, real), torch.as_tensor(expected).expand(3, C), **WIDE)


@pytest.mark.parametrize(("name", "counts"), COUNTS.items(), ids=COUNTS)
def test_qgmil_presets_have_the_published_number_of_parameters(name, counts):
    with torch.device("meta"):
        for features, count in zip((1024, 1536, 768), counts, strict=False):
            assert size(QGMIL.from_preset(name, features, num_classes=1)) == count
        assert size(QGMIL.from_preset(name, 1024, num_classes=3)) == counts[0] + 2 * (
            129 if name == "qgmil_small" else 257
        )


def test_qgmil_presets_with_options_have_known_number_of_parameters():
    with torch.device("meta"):
        assert size(QGMIL.from_preset("qgmil_base", 1024, 1, num_kv_heads=2)) == 4_727_170
        cls, odd = (QGMIL.from_preset("qgmil", 1024, 1, pooling="cls", reference_compat=c) for c in (False, True))
        assert (size(cls), size(odd)) == (5_120_386 - 263_425 + 512, 5_120_386 + 512)
        assert all(size(QGMIL.from_preset("qgmil", 1024, 1, pooling=p)) == 5_120_386 - 263_425 for p in ("mean", "max"))
        narrow = QGMIL(1024, 1, hidden_size=256, block=QGMILBlock(num_heads=4), reference_compat=True)
        assert size(narrow) == 2_461_058
        shapes = {name: tuple(p.shape) for name, p in QGMIL(1024, 1, hidden_size=256).named_parameters()}
    assert shapes["layers.0.self_attn.q_proj.weight"] == (256 + 8, 256)
    assert shapes["layers.0.self_attn.q_norm.weight"] == (32,)
    assert shapes["layers.0.mlp.up_proj.weight"] == (1024, 256)


def test_qgmil_unused_pool_of_published_code_changes_nothing():
    net, odd = tiny(pooling="cls"), tiny(pooling="cls", block={"head_size": 4, "ffn_size": 32}, reference_compat=True)
    weights = net.state_dict()
    odd.load_state_dict(odd.state_dict() | weights)
    assert_close(odd(*batch()), net(*batch()), rtol=0, atol=0)
    assert {name.split(".")[0] for name in odd.state_dict().keys() - weights.keys()} == {"attend", "pool_norm"}


def test_qgmil_is_initialized_as_published():
    net = QGMIL(64, 2, hidden_size=64, pooling="cls", block=QGMILBlock(norm="layer"))
    for name, p in net.named_parameters():
        if "norm" in name or name.startswith("input_proj.1"):
            assert (p == (1 if name.endswith("weight") else 0)).all(), name
        elif p.ndim == 1:
            assert not p.any(), name
        else:
            assert p.std().item() == pytest.approx(0.02, rel=0.25), name


def test_qgmil_dropout_is_on_tokens_blocks_and_classifier():
    net, rates = QGMIL(F, C, hidden_size=8, num_layers=2, dropout=0.3), []
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, *_: rates.append(m.p))
    net(torch.rand(1, 4, F))
    assert rates == [0.3] * (1 + 2 * 2 + 1)
    still, x = known(QGMIL(F, C, hidden_size=8, dropout=0.0)), torch.rand(1, 4, F)
    assert_close(still.train()(x), still.eval()(x), rtol=0, atol=0)


def test_qgmil_bias_of_scores_has_no_gradient():
    net = tiny()
    net(*batch()).square().sum().backward()
    assert net.attend.score.bias.grad.abs().item() < 1e-12
    assert net.attend.score.weight.grad.abs().max() > 1e-6


def test_qgmil_autocast_is_close_at_full_size():
    torch.manual_seed(1)
    net, x = QGMIL.from_preset("qgmil", 1024, 2).eval(), torch.randn(1, 60, 1024)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x)
    assert_close(rough.float(), net(x), rtol=0, atol=0.05)
    assert not torch.equal(rough.float(), net(x))


@pytest.mark.parametrize(
    "full",
    [False, pytest.param(True, marks=pytest.mark.slow(buys="every entry of the gradient in each factorial cell"))],
    ids=["fast", "full"],
)
@pytest.mark.parametrize("block", FACTORIAL, ids=lambda block: "-".join(map(str, block.values())))
def test_qgmil_gradients_of_every_factorial_cell(block, full):
    net = known(QGMIL(8, 2, hidden_size=8, block=QGMILBlock(num_heads=2, **block)).double())
    names, values = zip(*net.named_parameters(), strict=True)
    x, mask = torch.randn(2, 5, 8, dtype=torch.float64), torch.arange(5) < torch.tensor([[5], [3]])

    def call(x, *values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x, mask))

    inputs = [t.detach().clone().requires_grad_() for t in (x, *values)]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=not full)


def test_qgmil_can_be_written_in_yaml(tmp_path):
    (tmp_path / "net.yaml").write_text(
        "network: {_target_: monai_mil_ext.networks.nets.QGMIL, in_features: 5, num_classes: 3, hidden_size: 8, block:"
        " {_target_: monai_mil_ext.networks.nets.QGMILBlock, num_heads: 2, gate: none, ffn: mlp}}\n"
    )
    net = ConfigParser.load_config_file(tmp_path / "net.yaml")
    built = ConfigParser(net).get_parsed_content("network")
    expected = tiny({"gate": "none", "ffn": "mlp"}, torch.float32)
    assert_close(known(built)(*batch(torch.float32)), expected(*batch(torch.float32)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "avg"}, r"`pooling` must be one of 'attention', 'mean', 'max', 'cls', got 'avg'"),
        ({"hidden_size": 12}, r"`num_heads` must divide hidden_size 12 without head_size, got 8"),
        ({"hidden_size": 1}, r"`hidden_size` must be an integer of at least 2, got 1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
        ({"num_layers": 0}, r"`num_layers` must be a positive integer, got 0"),
        ({"in_features": 0}, r"`in_features` must be a positive integer, got 0"),
        ({"num_classes": 0}, r"`num_classes` must be a positive integer, got 0"),
    ],
    ids=str,
)
def test_qgmil_rejects_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        QGMIL(**{"in_features": 5, "num_classes": 2} | change)


def test_qgmil_rejects_unknown_preset():
    with pytest.raises(ValueError, match=r"`name` must be one of 'qgmil_base', .*, got 'qgmil_lite'; did you mean"):
        QGMIL.from_preset("qgmil_lite", 5, 2)
    with pytest.raises(ValueError, match="`num_kv_heads` must divide num_heads 8, got 3"):
        QGMIL.from_preset("qgmil", 5, 2, num_kv_heads=3)
