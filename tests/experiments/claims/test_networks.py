"""Tests of the tables of networks, on answers with a known order."""

import numpy as np
import pytest


def answers(shift, blocks=(1, 2, 3)):
    rng = np.random.default_rng(7)
    noise = {block: rng.normal(0, 0.1, 60) for block in (1, 2, 3)}
    labels = np.arange(60) % 2
    return {
        block: [
            {"label": int(y), "probability": float(0.5 + shift * (y - 0.5) + e), "entropy_ratio": 0.5}
            for y, e in zip(labels, noise[block], strict=True)
        ]
        for block in blocks
    }


@pytest.mark.parametrize(("shift", "said"), [(0.9, "above"), (0.1, "no difference seen"), (-0.3, "below")])
def test_a_network_is_above_or_below_if_the_interval_excludes_zero(shift, said):
    from experiments.claims.networks import networks_result

    result = networks_result(["ABMIL", "other", "missing"], {"ABMIL": answers(0.1), "other": answers(shift)}, "a note")
    reference, other, missing = result["rows"]
    assert (reference["verdict"], other["verdict"], missing["verdict"]) == ("-", said, "not run")
    low, high = other["interval_95"]["bag_auroc_less_reference"]
    assert low <= other["values"]["bag_auroc_less_reference"] <= high
    assert other["values"]["bag_auroc_less_reference"] == pytest.approx(
        other["values"]["bag_auroc"] - reference["values"]["bag_auroc"]
    )
    assert "instance_auroc" not in other["values"]  # no instance has a label
    assert missing["values"] == {}


def test_networks_are_compared_on_the_same_blocks(monkeypatch):
    from experiments.claims import networks, settings

    monkeypatch.setitem(settings.read_settings(), "min_seeds", 2)
    known = {"ABMIL": answers(0.1), "part": answers(0.2, blocks=(2, 3)), "one": answers(0.2, blocks=(1,))}
    result = networks.networks_result(list(known), known, "")
    assert result["blocks"] == [2, 3]
    assert [row["verdict"] != "not run" for row in result["rows"]] == [True, True, False]
    assert len(result["rows"][1]["blocks"]["bag_auroc"]) == 2


def test_without_the_reference_nothing_is_compared():
    from experiments.claims.networks import networks_result

    (row,) = networks_result(["ABMIL", "other"], {"other": answers(0.5)}, "")["rows"]
    assert (row["verdict"], row["values"]) == ("not run", {})
