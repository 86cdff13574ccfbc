"""Tests of the training of variants."""

import pytest
import torch


@pytest.fixture
def training():
    from experiments.claims import training

    return training


def test_without_nsf_the_target_is_the_softmax(training):
    scores, anchor = torch.randn(2, 5, 3), torch.randn(2, 5, 3, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    loss = training.SoftmaxKLLoss()(scores, anchor, mask)
    target, given = (z.masked_fill(~mask[..., None], -1e9).softmax(1) for z in (anchor, scores))
    expected = torch.nn.functional.kl_div(given.clamp(min=1e-30).log(), target, reduction="none").sum(1).mean()
    torch.testing.assert_close(loss, expected.detach())
    assert not loss.requires_grad


def test_parts_reach_the_network_and_the_anchor(training):
    from experiments.claims.settings import variants

    method = training.make_method(variants()["ASMIL with NSF, token drop"])
    assert (method.make_anchor().momentum, type(method.make_anchor().loss).__name__) == (0, "NSFKLLoss")
    method = training.make_method(variants()["ASMIL with anchor"])
    assert (method.make_anchor().momentum, type(method.make_anchor().loss).__name__) == (0.999, "SoftmaxKLLoss")
    assert method.settings["token_drop"] == 0
    assert training.make_method(variants()["ASMIL with no part"]).settings["anchor"] == 0
    block = training.make_method(variants()["QG-MIL with QK norm, SwiGLU"]).settings["block"]
    assert (block["gate"], block["qk_norm"], block["norm"], block["ffn"]) == ("none", True, "layer", "swiglu")


def test_a_variant_is_that_of_the_benchmark_where_no_part_is_missing(training):
    """ASMIL with all parts has the settings of the benchmark's ASMIL."""
    from experiments.claims.settings import variants

    from monai_mil_ext.apps.study import parse_methods

    (known,) = parse_methods("ASMIL")
    ours = training.make_method(variants()["ASMIL with anchor, NSF, token drop"])
    assert ours.settings == {**known.settings, "token_drop": 0.5, "anchor": known.anchor}
    assert ours.network == known.network


def test_a_training_uses_the_target_of_its_variant(training, small, encoded, tmp_path, monkeypatch):
    from dataclasses import replace

    from experiments.claims.settings import variants

    calls = []
    kept = training.SoftmaxKLLoss.log_target
    monkeypatch.setattr(training.SoftmaxKLLoss, "log_target", lambda *args: calls.append(0) or kept(*args))
    short = replace(small, training={**small.training, "epochs": 1})
    spec = variants()["ASMIL with anchor"]
    spec = {**spec, "settings": {**spec["settings"], "hidden_size": 8}}
    run = training.make_run(short, "one", "ASMIL with anchor", spec, 1)
    record = training.train(run, tmp_path, short, encoded)
    assert record["attention_jsd"] == [None]
    assert calls
    assert (tmp_path / "model.pt").exists()
